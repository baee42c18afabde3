// SPDX-License-Identifier: Apache-2.0
#include "python/convolution_binding.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <optional>
#include <utility>

#include "core/activation_info.h"
#include "cpu/operators/functions.h"
#include "cuda/operators/operators.h"
#include "python/caller.h"
#include "python/operator_run.h"
#include "scn_fx/gpu.h"

namespace scn::python {
namespace {

constexpr int32_t kMostRepeats = 1000000;

/// What a convolution computes, as Python gives it.
struct ConvolutionProblem {
  AnyArray features, weight;
  std::optional<AnyArray> bias;
  AnyArray map;
  ElementType precision;
  bool round_output;
  Activation activation;
  double input_amax;
  std::optional<AnyArray> weight_amax;
  double output_amax;
  std::string layer;
};

ConvolutionProblem problem_of(const AnyArray& features, const AnyArray& weight,
                              const std::optional<AnyArray>& bias, const AnyArray& map,
                              const std::string& precision, const std::string& output_precision,
                              const NamedActivation& activation, double input_amax,
                              const std::optional<AnyArray>& weight_amax, double output_amax,
                              const std::string& name) {
  const std::string layer = operator_label(name, "convolution");
  return {features,
          weight,
          bias,
          map,
          precision_of(precision, "precision"),
          precision_of(output_precision, "output_precision") == ElementType::kFloat16,
          activation_of(activation.first, activation.second, layer),
          input_amax,
          weight_amax,
          output_amax,
          layer};
}

/// The call of a problem, with copies of what float32 views cannot serve; both live as long as this.
class Operands {
 public:
  Operands(const ConvolutionProblem& p, MemoryBudget& budget)
      : x_(p.features, 2, p.layer, "features", budget), w_(p.weight, 5, p.layer, "weight", budget) {
    const AnyArray &features = p.features, &weight = p.weight, &map = p.map;
    const std::string& layer = p.layer;
    if (features.shape(1) != weight.shape(4)) {
      fail(ErrorKind::kSite, layer, ": expected features [N, C] and weight [out, kz, ky, kx, C], got ",
           shape_name(features), " and ", shape_name(weight), ".");
    }
    if (p.bias) bias_.emplace(*p.bias, 1, layer, "bias", budget, FloatView::Reads::kAgain);
    if (p.weight_amax)
      amax_.emplace(*p.weight_amax, 1, layer, "weight dynamic ranges", budget, FloatView::Reads::kAgain);
    if ((bias_ && p.bias->shape(0) != weight.shape(0)) ||
        (amax_ && p.weight_amax->shape(0) != weight.shape(0)) ||
        (p.precision == ElementType::kInt8 && !amax_)) {
      fail(ErrorKind::kArgument, layer,
           ": bias and weight dynamic ranges need one entry per output channel (", weight.shape(0),
           "); int8 needs the ranges.");
    }
    const Size offsets = Size(weight.shape(1)) * Size(weight.shape(2)) * Size(weight.shape(3));
    call_.map = int32_matrix(map, 0, layer, "kernel_map");
    if (Size(map.shape(1)) != offsets) {
      fail(ErrorKind::kSite, layer, ": the kernel map has ", map.shape(1), " columns, but the weight has ",
           offsets.text(), " offsets. Pass the map that was made for this kernel.");
    }
    call_.features = x_.data();
    call_.in_sites = int64_t(features.shape(0));
    call_.in_channels = int64_t(features.shape(1));
    call_.weight = w_.data();
    call_.out_channels = int64_t(weight.shape(0));
    call_.offsets = offsets.value();
    call_.bias = bias_ ? bias_->data() : nullptr;
    call_.weight_amax = amax_ ? amax_->data() : nullptr;
    call_.input_amax = p.input_amax;
    call_.out_sites = int64_t(map.shape(0));
    call_.precision = p.precision;
    call_.round_output = p.round_output;
    call_.activation = p.activation;
    call_.output_amax = p.output_amax;
    call_.layer = layer;
  }
  Operands(const Operands&) = delete;

  ConvolutionCall& call() { return call_; }

 private:
  FloatView x_, w_;
  std::optional<FloatView> bias_, amax_;
  ConvolutionCall call_{};
};

/// The stored rows without what pads them.
NumpyArray result_array(Convolved made, const ConvolutionCall& call, MemoryBudget& budget) {
  const size_t rows = size_t(call.out_sites), columns = size_t(call.out_channels),
               element = size_t(element_bytes(made.type)), stride = size_t(made.columns) * element;
  const nb::dlpack::dtype dtype =
      made.type == ElementType::kInt8 ? nb::dtype<int8_t>() : float_dtype(int(8 * element));
  if (made.columns == call.out_channels) return to_numpy(std::move(made.rows), {rows, columns}, dtype);
  const Size bytes = Size(rows) * columns * element;
  budget.take(bytes, call.layer, "its result");
  std::unique_ptr<char[]> out(new char[bytes.count()]);
  for (size_t row = 0; row < rows; ++row)
    std::memcpy(&out[row * columns * element], &made.rows[row * stride], columns * element);
  return to_numpy(std::move(out), {rows, columns}, dtype);
}

/// The operator.
NumpyArray convolution_numpy(const AnyArray& features, const AnyArray& weight,
                             const std::optional<AnyArray>& bias, const AnyArray& map,
                             const std::string& precision, const std::string& output_precision,
                             const NamedActivation& activation, double input_amax,
                             const std::optional<AnyArray>& weight_amax, const std::string& name,
                             Integer threads) {
  MemoryBudget budget = MemoryBudget::of_operator();
  Operands operands(problem_of(features, weight, bias, map, precision, output_precision, activation,
                               input_amax, weight_amax, 0.0, name),
                    budget);
  const ConvolutionCall& call = operands.call();
  Convolved made = run(call.layer, threads, [&](ThreadPool& pool) { return convolve(call, pool, budget); });
  return result_array(std::move(made), call, budget);
}

constexpr int kCpu = -1;

/// The number of a GPU that this build can use, or kCpu.
int device_of(const std::string& name) {
  if (name == "cpu") return kCpu;
  const std::string digits = name == "cuda" ? "0" : name.rfind("cuda:", 0) == 0 ? name.substr(5) : "";
  if (digits.empty() || digits.size() > 3 || digits.find_first_not_of("0123456789") != std::string::npos)
    fail(ErrorKind::kArgument, "device must be 'cpu', 'cuda' or 'cuda:N', got '", name, "'.");
  const int number = std::stoi(digits);
  const CudaInfo info = cuda_info();
  if (!info.problem.empty()) fail(ErrorKind::kArgument, name, " cannot be used. ", info.problem);
  if (number >= int(info.devices.size())) {
    fail(ErrorKind::kArgument, name, " cannot be used: the number of GPUs here is ", info.devices.size(),
         ", counted from cuda:0.");
  }
  return number;
}

nb::typed<nb::tuple, NumpyArray, nb::str, nb::typed<nb::list, nb::float_>> convolve_problem(
    const ConvolutionProblem& problem, const std::string& device, const std::string& config, Integer repeat,
    Integer threads) {
  if (repeat.number < 0 || repeat.number > kMostRepeats)
    fail(ErrorKind::kArgument, "repeat must be 0 to ", kMostRepeats, ", got ", repeat.number, ".");
  const int number = device_of(device);
  MemoryBudget budget = MemoryBudget::of_operator();
  Operands operands(problem, budget);
  ConvolutionCall& call = operands.call();
  call.kernel = config;
  call.repeat = int32_t(repeat.number);
  Convolved made = number == kCpu ? run(call.layer, threads,
                                        [&](ThreadPool& pool) { return convolve(call, pool, budget); })
                                  : run(call.layer, [&] { return cuda_convolve(number, call); });
  const std::string kernel = made.kernel;
  const std::vector<double> seconds = made.seconds;
  return nb::make_tuple(result_array(std::move(made), call, budget), kernel, seconds);
}

std::vector<std::string> kernels_of(const ConvolutionProblem& problem, const std::string& device) {
  const int number = device_of(device);
  MemoryBudget budget = MemoryBudget::of_operator();
  Operands operands(problem, budget);
  const ConvolutionCall& call = operands.call();
  if (number != kCpu) return run(call.layer, [&] { return cuda_convolution_kernels(number, call); });
  return run(call.layer, Integer{1},
             [&](ThreadPool& pool) { return convolution_kernels(call, pool, budget); });
}

constexpr const char* kProblemDoc = R"(Arrays in host memory, in C order; they are kept, not copied.

Args:
    features: float16 or float32 [N, in].
    weight: float16 or float32 [out, kz, ky, kx, in].
    bias: float16 or float32 [out].
    kernel_map: int32 [M, K], K = kz * ky * kx: the row of `features` that an output row reads at each
        offset, or -1.
    precision: of the products, "int8", "fp16" or "fp32".
    output_precision: "fp16" rounds the result to float16.
    activation: name and parameter, as ("LeakyReLU", 0.1) or ("None", 0.0).
    input_amax, weight_amax: dynamic ranges, for int8; the weight's are float [out].
    output_amax: dynamic range of the layer that reads the result, which is then stored as its int8
        rows, as engines do; 0 stores float16 or float32.
    name: what messages call it.

ArgumentError for unknown names; arrays that do not fit each other are errors of `convolve`.)";

constexpr const char* kConvolveDoc = R"(One convolution below the engine, by one of its kernels.

Args:
    problem: what to compute.
    device: "cpu", "cuda" or "cuda:N".
    config: the name of a kernel, one of `convolution_kernels(problem, device)`; empty for the one that
        an engine chooses.
    repeat: further runs of the product and its finish, over operands that are prepared already, to be
        timed: by the host's steady clock on the CPU, by events on a GPU.
    threads: of the CPU; 0 for all processors.

Returns:
    The result [M, out], int8 with an `output_amax`, else float16 or float32 by the `output_precision`;
    the kernel that ran, in one line that begins with its name; the seconds of each repeated run.

Raises:
    ArgumentError: a kernel that cannot compute the problem here, an unknown device, ranges that cannot be
        computed with.
    SiteError: arrays that do not fit each other, or a map that reads rows that are not there.
    OverflowedError, NonFiniteError: values that the precisions do not have.
    MemoryLimitError: the memory that it takes is not there.)";

constexpr const char* kKernelsDoc =
    R"(The names of all kernels that can compute a problem on a device, whichever an engine would choose.

On the CPU those of every instruction set that the processor has, and, for int8, only those that take
negative features where there are some. Errors as for `convolve`.)";

}  // namespace

void bind_convolutions(nb::module_& m) {
  using namespace nb::literals;
  m.def("convolution", convolution_numpy, "features"_a, "weight"_a, "bias"_a.none(), "kernel_map"_a,
        "precision"_a, "output_precision"_a, "activation"_a, "input_amax"_a, "weight_amax"_a.none(),
        "name"_a = "convolution", "threads"_a = 0);
  nb::class_<ConvolutionProblem>(m, "ConvolutionProblem",
                                 "One convolution, to be computed by any kernel on any device.")
      .def(
          "__init__",
          [](ConvolutionProblem* self, const AnyArray& features, const AnyArray& weight,
             const std::optional<AnyArray>& bias, const AnyArray& map, const std::string& precision,
             const std::string& output_precision, const NamedActivation& activation, double input_amax,
             const std::optional<AnyArray>& weight_amax, double output_amax, const std::string& name) {
            new (self) ConvolutionProblem(problem_of(features, weight, bias, map, precision, output_precision,
                                                     activation, input_amax, weight_amax, output_amax, name));
          },
          "features"_a, "weight"_a, "bias"_a.none(), "kernel_map"_a, "precision"_a, "output_precision"_a,
          "activation"_a, "input_amax"_a = 0.0, "weight_amax"_a.none() = nb::none(), "output_amax"_a = 0.0,
          "name"_a = "convolution", kProblemDoc);
  m.def("convolve", convolve_problem, "problem"_a, "device"_a = "cpu", "config"_a = "", "repeat"_a = 0,
        "threads"_a = 0, kConvolveDoc);
  m.def("convolution_kernels", kernels_of, "problem"_a, "device"_a = "cpu", kKernelsDoc);
}

}  // namespace scn::python
