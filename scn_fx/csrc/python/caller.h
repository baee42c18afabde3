// SPDX-License-Identifier: Apache-2.0
// Numbers and arrays of a caller of single operators. Arrays come as they are, without conversions, so that
// each that does not fit gets an error that says what is wrong with it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/memory_budget.h"
#include "core/sizes.h"
#include "cpu/operators/map_functions.h"
#include "python/arrays.h"
#include "scn_fx/half.h"

namespace scn::python {

/// An activation as Python has it: its name, and its parameter if it has one.
using NamedActivation = std::pair<std::string, float>;

/// A Python integer of any size; those beyond 64 bits become the last one that 64 bits hold.
struct Integer {
  int64_t number = 0;
};
using Integers = std::vector<Integer>;

inline Triple triple(const Integers& v, const char* what) {
  if (v.size() != 3)
    fail(ErrorKind::kArgument, what, " must have three entries (z, y, x), got ", v.size(), ".");
  return {narrow(v[0].number, what), narrow(v[1].number, what), narrow(v[2].number, what)};
}

/// Throws unless the array lies in host memory without gaps, in C order.
inline void check_memory(const AnyArray& a, const std::string& layer, const char* what) {
  if (a.device_type() != nb::device::cpu::value) {
    fail(ErrorKind::kSite, layer, ": ", what,
         " must lie in host memory, but the array is on another device. ", "Copy it to the host first.");
  }
  int64_t step = 1;
  bool contiguous = true;
  for (size_t axis = a.ndim(); axis-- > 0;) {
    if (a.shape(axis) == 0) return;
    contiguous = contiguous && (a.shape(axis) == 1 || a.stride(axis) == step);
    if (contiguous) step = (Size(step) * Size(a.shape(axis))).value();
  }
  if (!contiguous) {
    fail(ErrorKind::kSite, layer, ": ", what, " ", shape_name(a),
         " must lie without gaps in C order. Pass numpy.ascontiguousarray(array).");
  }
}

/// The int32 rows of an array with `columns` columns (any number when 0).
inline const int32_t* int32_matrix(const AnyArray& a, size_t columns, const std::string& layer,
                                   const char* what) {
  check_memory(a, layer, what);
  return int32_rows(a, columns, (layer + ": " + what).c_str());
}

inline GivenSites sites_of(const AnyArray& indices, Integer batch, const std::string& layer) {
  const int32_t* const rows = int32_matrix(indices, 4, layer, "indices (batch, z, y, x)");
  return {reinterpret_cast<const Site*>(rows), int64_t(indices.shape(0)), batch.number};
}

/// A float16 or float32 array of `axes` axes as float32: a view, or a copy kept alive here of what is float16
/// or will be read more than once.
class FloatView {
 public:
  enum class Reads { kOnce, kAgain };

  FloatView(const AnyArray& a, size_t axes, const std::string& layer, const char* what, MemoryBudget& budget,
            Reads reads = Reads::kOnce) {
    const bool half = is_float(a, 16);
    if (!half && !is_float(a, 32)) {
      fail(ErrorKind::kSite, layer, ": ", what, " must be float16 or float32, got ", dtype_name(a),
           ". Convert it first.");
    }
    if (a.ndim() != axes) {
      fail(ErrorKind::kSite, layer, ": ", what, " must have ", axes, " axes, got ", shape_name(a), ".");
    }
    check_memory(a, layer, what);
    const Size count = element_count(a);
    if (!half && reads == Reads::kOnce) {
      data_ = static_cast<const float*>(a.data());
      return;
    }
    budget.take(count * sizeof(float), layer, what);
    copy_.resize(count.count());
    if (half) {
      const uint16_t* const from = static_cast<const uint16_t*>(a.data());
      for (size_t i = 0; i < copy_.size(); ++i) copy_[i] = half_to_float(from[i]);
    } else {
      const float* const from = static_cast<const float*>(a.data());
      copy_.assign(from, from + count.count());
    }
    data_ = copy_.data();
  }
  const float* data() const { return data_; }

 private:
  const float* data_ = nullptr;
  std::vector<float> copy_;
};

}  // namespace scn::python

namespace nanobind::detail {

template <>
struct type_caster<scn::python::Integer> {
  NB_TYPE_CASTER(scn::python::Integer, const_name("int"))

  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    const object number = steal(PyNumber_Index(source.ptr()));
    if (!number.is_valid()) {
      PyErr_Clear();
      return false;
    }
    int beyond = 0;
    value.number = PyLong_AsLongLongAndOverflow(number.ptr(), &beyond);
    if (beyond) {
      value.number = beyond > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
    }
    return true;
  }
};

}  // namespace nanobind::detail
