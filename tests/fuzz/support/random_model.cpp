// SPDX-License-Identifier: Apache-2.0
#include "random_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "scn_fx/half.h"

namespace fuzz {
namespace {

// so that an execution stays short
constexpr int64_t kMostDense = 1 << 14;    // values of a dense map
constexpr int32_t kMostWeights = 1 << 12;  // of a convolution

/// A sparse value: its tensor, channels, grid, and the convolution that made its sites.
struct Value {
  std::string name;
  int32_t channels;
  Triple grid;
  std::string sites;
};

struct Strided {
  std::string rulebook;
  Value from;
  std::string to;
  Triple kernel;
};

std::vector<int64_t> wide(const Triple& t) { return {t[0], t[1], t[2]}; }

class Drawing {
 public:
  Drawing(Bytes& bytes, bool extreme) : bytes_(bytes), extreme_(extreme), quantised_(bytes.chance(70)) {}

  Model model() {
    batch_ = bytes_.between(1, 3);
    values_.push_back({"features", channels(), grid(), "input"});
    if (!bytes_.chance(4)) convolution(values_[0], "subm");
    for (int block = bytes_.between(0, 7); block > 0; --block) {
      const Value x = bytes_.chance(60) ? values_.back() : bytes_.pick(values_);
      switch (bytes_.below(8)) {
        case 0:
        case 1:
          convolution(x, "subm");
          break;
        case 2:
          convolution(x, "strided");
          break;
        case 3:
          convolution(x, "transposed");
          break;
        case 4:
          inverse(x);
          break;
        case 5:
          add(x);
          break;
        case 6:
          relu(x);
          break;
        default:
          add(convolution(convolution(x, "subm"), "subm", x.channels));
      }
    }
    for (int outputs = bytes_.between(1, 3); outputs > 0; --outputs) {
      const Value& x = bytes_.chance(70) ? values_.back() : bytes_.pick(values_);
      model_.outputs.push_back(bytes_.chance(50) ? dense(x) : x.name);
    }
    return std::move(model_);
  }

 private:
  int32_t channels() {
    static constexpr int32_t usual[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 32, 33, 64};
    return bytes_.pick(usual);
  }

  Triple grid() {
    Triple out;
    for (int32_t& n : out) n = bytes_.between(1, 12);
    const uint32_t kind = bytes_.below(8);
    if (kind == 0) bytes_.pick(out) = bytes_.between(60, 200);     // crosses words of a bitmap
    if (kind == 1 && bytes_.chance(40)) out = {1100, 1000, 1000};  // beyond a bitmap: sorted cells
    if (extreme_ && bytes_.chance(40)) bytes_.pick(out) = bytes_.edge32(1);
    return out;
  }

  /// Three numbers in [low, high], or now and then one at an edge.
  Triple triple(int32_t low, int32_t high, int32_t least) {
    Triple out;
    for (int32_t& n : out) n = bytes_.between(low, high);
    if (extreme_ && bytes_.chance(30)) bytes_.pick(out) = bytes_.edge32(least);
    return out;
  }

  float amax() {
    return extreme_ && bytes_.chance(30) ? bytes_.edge_float() : 0.5f + 0.1f * bytes_.below(50);
  }

  std::string new_name(const char* word) { return word + std::to_string(model_.nodes.size()); }

  Node& node(const char* op_type, const std::string& name, std::vector<std::string> inputs) {
    model_.nodes.emplace_back();
    Node& n = model_.nodes.back();
    n.op_type = op_type;
    n.name = name;
    n.inputs = std::move(inputs);
    n.outputs = {name};
    return n;
  }

  void precisions(Node& n) {
    if (!quantised_) return;
    n.text("precision", bytes_.chance(70) ? "int8" : "fp16");
    n.text("output_precision", bytes_.chance(50) ? "int8" : "fp16");
  }

  /// Float16 values of about `size`, from one byte: inputs stay short.
  void tensor(const std::string& name, std::vector<int64_t> dims, float size) {
    Tensor t;
    t.name = name;
    t.dims = std::move(dims);
    int64_t count = 1;
    for (const int64_t d : t.dims) count *= d;
    uint32_t state = bytes_.byte() * 2654435761u + 1;
    const float scale = extreme_ && bytes_.chance(10) ? 60000.0f : size;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 1664525u + 1013904223u;
      const uint16_t half = scn::float_to_half((float(state >> 16) / 32768.0f - 1.0f) * scale);
      t.raw += char(half & 0xff);
      t.raw += char(half >> 8);
    }
    model_.tensors.push_back(std::move(t));
  }

  // Values are passed as copies: what is appended may move those in the list.

  /// Appends a convolution; returns its value, or x where the grid would vanish.
  Value convolution(Value x, const std::string& kind, int32_t out_channels = 0) {
    Triple kernel{bytes_.between(1, 3), bytes_.between(1, 3), bytes_.between(1, 3)};
    if (bytes_.chance(5)) kernel = {1, 1, bytes_.between(4, 70)};  // masks of two words
    const int32_t out = out_channels ? out_channels : channels();
    if (kernel[0] * kernel[1] * kernel[2] * out * x.channels > kMostWeights) kernel = {1, 1, 1};
    const bool subm = kind == "subm", transposed = kind == "transposed";
    const Triple dilation = bytes_.chance(20) ? triple(1, 3, 1) : Triple{1, 1, 1};
    const Triple stride = subm ? Triple{1, 1, 1} : triple(1, 3, 1);
    Triple padding;
    for (size_t i = 0; i < 3; ++i) padding[i] = int32_t(int64_t(kernel[i] / 2) * dilation[i]);
    if (!subm && bytes_.chance(30)) padding = triple(0, 2, 0);
    const Triple extra = transposed && bytes_.chance(30) ? triple(0, 1, 0) : Triple{0, 0, 0};
    Value y{new_name(kind.c_str()), out, x.grid, x.sites};
    if (!subm) {
      y.sites = y.name;
      for (size_t i = 0; i < 3; ++i) {
        const int64_t reach = int64_t(dilation[i]) * (kernel[i] - 1), n = x.grid[i];
        const int64_t size = transposed ? (n - 1) * stride[i] - 2 * int64_t(padding[i]) + reach + 1 + extra[i]
                                        : (n + 2 * int64_t(padding[i]) - reach - 1) / stride[i] + 1;
        if (!extreme_ && (size < 1 || size > 1 << 20)) return x;
        y.grid[i] = int32_t(std::min<int64_t>(std::max<int64_t>(size, 1), INT32_MAX));
      }
    }
    const bool shared = bytes_.chance(50);
    std::string rulebook = y.name;
    if (subm && shared) {  // equal geometry on equal sites: one map, as layers with one indice_key have
      rulebook = x.sites;
      for (size_t i = 0; i < 3; ++i)
        rulebook += "_" + std::to_string(kernel[i]) + "." + std::to_string(dilation[i]);
    } else if (bytes_.chance(10)) {
      rulebook.clear();
    }
    Node& n = append(x, y, kernel, rulebook);
    n.integer(subm ? "subm" : "transposed", subm || transposed);
    n.integers("stride", wide(stride))
        .integers("padding", wide(padding))
        .integers("dilation", wide(dilation));
    if (transposed) n.integers("output_padding", wide(extra));
    if (!extreme_ || model_.nodes.size() == 1) n.integers("input_spatial_shape", wide(x.grid));
    if (!extreme_) n.integers("output_spatial_shape", wide(y.grid));
    if (extreme_ && bytes_.chance(20)) n.integer("output_bound", bytes_.edge());
    if (kind == "strided" && !rulebook.empty()) strided_.push_back({rulebook, x, y.sites, kernel});
    return y;
  }

  void inverse(Value x) {
    for (const Strided& s : strided_) {
      if (s.to != x.sites) continue;
      const Value y{new_name("inverse"), channels(), s.from.grid, s.from.sites};
      append(x, y, s.kernel, s.rulebook).integer("inverse", 1);
      return;
    }
    convolution(x, "strided");
  }

  Node& append(Value x, Value y, const Triple& kernel, const std::string& rulebook) {
    tensor(y.name + ".weight", {y.channels, kernel[0], kernel[1], kernel[2], x.channels},
           1.0f / std::sqrt(float(x.channels)));
    tensor(y.name + ".bias", {y.channels}, 0.5f);
    Node& n = node("SparseConvolution", y.name, {x.name, y.name + ".weight", y.name + ".bias"});
    n.integers("kernel_size", wide(kernel)).text("rulebook", rulebook);
    n.text("activation", bytes_.chance(50) ? "ReLU" : "None");
    precisions(n);
    if (quantised_) {
      n.number("input_dynamic_range", amax());
      n.numbers("weight_dynamic_ranges", std::vector<float>(size_t(y.channels), amax()));
    }
    values_.push_back(y);
    return n;
  }

  void add(Value x) {
    std::vector<Value> same;
    for (const Value& v : values_) {
      if (v.sites == x.sites && v.channels == x.channels) same.push_back(v);
    }
    if (same.empty()) return;
    const Value y{new_name("add"), x.channels, x.grid, x.sites};
    const std::string other = bytes_.pick(same).name;
    Node& n = node(bytes_.chance(20) ? "QuantAdd" : "Add", y.name, {x.name, other});
    precisions(n);
    if (quantised_) n.number("input0_dynamic_range", amax()).number("input1_dynamic_range", amax());
    values_.push_back(y);
    if (bytes_.chance(50)) relu(y);
  }

  void relu(Value x) {
    const Value y{new_name("relu"), x.channels, x.grid, x.sites};
    node("Relu", y.name, {x.name});
    values_.push_back(y);
  }

  /// ScatterDense with or without what follows it; returns the last value.
  std::string dense(Value x) {
    Triple grid = x.grid;
    if (bytes_.chance(20)) bytes_.pick(grid) += extreme_ ? 0 : 1;
    if (extreme_ && bytes_.chance(30)) bytes_.pick(grid) = bytes_.edge32(1);
    const int64_t batch = extreme_ && bytes_.chance(30) ? bytes_.edge() : batch_;
    std::vector<int64_t> dims{batch, x.channels, grid[0], grid[1], grid[2]};
    double count = 1;
    for (const int64_t d : dims) count *= double(d);
    if (!extreme_ && count > double(kMostDense)) return x.name;
    std::string last = new_name("dense");
    node("ScatterDense", last, {x.name})
        .text("format", bytes_.chance(80) ? "zyx" : "xyz")
        .integers("input_spatial_shape", wide(grid))
        .integers("output_shape", dims);
    for (int more = bytes_.between(0, 2); more > 0; --more) {
      if (bytes_.chance(50)) {
        std::vector<int64_t> axes(dims.size()), to(dims.size());
        for (size_t i = 0; i < axes.size(); ++i) axes[i] = int64_t(i);
        for (size_t i = 1; i + 1 < axes.size(); ++i)
          std::swap(axes[i], axes[i + bytes_.below(uint32_t(axes.size() - i))]);
        if (bytes_.chance(10)) std::swap(axes.front(), axes.back());
        for (size_t i = 0; i < axes.size(); ++i) to[i] = dims[size_t(axes[i])];
        const std::string name = new_name("transpose");
        node("Transpose", name, {last}).integers("dims", axes);
        dims = to;
        last = name;
      } else {
        dims = reshaped(dims);
        const std::string name = new_name("reshape");
        node("Reshape", name, {last}).integers("dims", dims);
        last = name;
      }
    }
    return last;
  }

  /// Two neighbouring sizes as one; extreme: sizes whose product may wrap to the right one.
  std::vector<int64_t> reshaped(std::vector<int64_t> dims) {
    if (extreme_ && bytes_.chance(50)) {
      std::vector<int64_t> out;
      for (int count = bytes_.between(1, 6); count > 0; --count)
        out.push_back(bytes_.chance(50) ? int64_t(uint64_t(1) << bytes_.below(64)) : bytes_.edge());
      return out;
    }
    if (dims.size() < 2) return dims;
    const size_t at = bytes_.below(uint32_t(dims.size() - 1));
    dims[at] = int64_t(uint64_t(dims[at]) * uint64_t(dims[at + 1]));
    dims.erase(dims.begin() + int64_t(at) + 1);
    return dims;
  }

  Bytes& bytes_;
  const bool extreme_, quantised_;
  int32_t batch_ = 1;
  Model model_;
  std::vector<Value> values_;
  std::vector<Strided> strided_;
};

}  // namespace

Model random_model(Bytes& bytes, bool extreme) { return Drawing(bytes, extreme).model(); }

Model any_model(Bytes& bytes) {
  const uint32_t kind = bytes.below(4);  // 0, 1: valid; 2: corrupt; 3: extreme, perhaps corrupt
  Model model = random_model(bytes, kind == 3);
  if (kind == 2 || (kind == 3 && bytes.chance(30))) {
    for (int count = bytes.between(1, 3); count > 0; --count) corrupt(model, bytes);
  }
  return model;
}

}  // namespace fuzz
