// SPDX-License-Identifier: Apache-2.0
// Checked views of numpy and device arrays, and new arrays for results.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/sizes.h"
#include "core/types.h"
#include "python/signatures.h"

namespace scn::python {

namespace nb = nanobind;
using Array = nb::ndarray<nb::ro, nb::device::cpu, nb::c_contig>;
/// On any device, in any order: to be checked.
using AnyArray = nb::ndarray<nb::ro>;

template <typename A>
bool is_float(const A& a, int bits) {
  return a.dtype().code == uint8_t(nb::dlpack::dtype_code::Float) && a.dtype().bits == bits &&
         a.dtype().lanes == 1;
}

template <typename A>
std::string dtype_name(const A& a) {
  const char* kind = "dtype code ";
  switch (nb::dlpack::dtype_code(a.dtype().code)) {
    case nb::dlpack::dtype_code::Int:
      kind = "int";
      break;
    case nb::dlpack::dtype_code::UInt:
      kind = "uint";
      break;
    case nb::dlpack::dtype_code::Float:
      kind = "float";
      break;
    case nb::dlpack::dtype_code::Bfloat:
      kind = "bfloat";
      break;
    case nb::dlpack::dtype_code::Bool:
      kind = "bool";
      break;
    case nb::dlpack::dtype_code::Complex:
      kind = "complex";
      break;
    default:
      break;
  }
  return kind + std::to_string(a.dtype().bits);
}

template <typename A>
std::string shape_name(const A& a) {
  std::string out = "[";
  for (size_t i = 0; i < a.ndim(); ++i) out += (i ? ", " : "") + std::to_string(a.shape(i));
  return out + "]";
}

/// The int32 data of an array with `columns` columns (any number when 0).
template <typename A>
const int32_t* int32_rows(const A& a, size_t columns, const char* what) {
  if (a.dtype() != nb::dtype<int32_t>() || a.ndim() != 2 || (columns && a.shape(1) != columns)) {
    fail(ErrorKind::kSite, what, " must be an int32 array of shape [N, ",
         columns ? std::to_string(columns) : "K", "], got ", dtype_name(a), " ", shape_name(a),
         ". Convert it first.");
  }
  return static_cast<const int32_t*>(a.data());
}

/// What an array holds, as nanobind and numpy count it.
template <typename A>
Size element_count(const A& a) {
  Size count = 1;
  for (size_t axis = 0; axis < a.ndim(); ++axis) count *= Size(a.shape(axis));
  return count;
}

/// Hands memory over to a new numpy array.
template <typename T>
NumpyArray to_numpy(std::unique_ptr<T[]> data, std::vector<size_t> shape, nb::dlpack::dtype dtype) {
  T* raw = data.release();
  nb::capsule owner(raw, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::steal<NumpyArray>(
      nb::cast(nb::ndarray<nb::numpy>(raw, shape.size(), shape.data(), owner, nullptr, dtype)).release());
}

inline nb::dlpack::dtype float_dtype(int bits) {
  return {uint8_t(nb::dlpack::dtype_code::Float), uint8_t(bits), 1};
}

inline NumpyArray int32_array(std::unique_ptr<int32_t[]> data, size_t rows, size_t columns) {
  return to_numpy(std::move(data), {rows, columns}, nb::dtype<int32_t>());
}

inline Triple triple(const std::vector<int32_t>& v, const char* what) {
  if (v.size() != 3)
    fail(ErrorKind::kArgument, what, " must have three entries (z, y, x), got ", v.size(), ".");
  return {v[0], v[1], v[2]};
}

inline ElementType precision_of(const std::string& name, const char* what) {
  if (name == "int8") return ElementType::kInt8;
  if (name == "fp16") return ElementType::kFloat16;
  if (name == "fp32") return ElementType::kFloat32;
  fail(ErrorKind::kArgument, what, " must be 'int8', 'fp16' or 'fp32', got '", name, "'.");
}

}  // namespace scn::python
