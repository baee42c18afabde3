// SPDX-License-Identifier: Apache-2.0
// The module that Python loads: errors become the exceptions of scn_fx.errors; the *_binding.cpp files beside
// this add its parts.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "core/error.h"
#include "python/convolution_binding.h"
#include "python/cuda_binding.h"
#include "python/cuda_operators_binding.h"
#include "python/engine_binding.h"
#include "python/functions_binding.h"
#include "python/tools_binding.h"

namespace nb = nanobind;

namespace {

const char* python_error(scn::ErrorKind kind) {
  switch (kind) {
    case scn::ErrorKind::kOnnx:
      return "OnnxError";
    case scn::ErrorKind::kSite:
      return "SiteError";
    case scn::ErrorKind::kBound:
      return "BoundError";
    case scn::ErrorKind::kNonFinite:
      return "NonFiniteError";
    case scn::ErrorKind::kOverflow:
      return "OverflowedError";
    case scn::ErrorKind::kArgument:
      return "ArgumentError";
    case scn::ErrorKind::kMemory:
      return "MemoryLimitError";
    case scn::ErrorKind::kPlan:
      return "PlanError";
  }
  return "ScnError";
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "Compiled kernels and engine of scn-fx; use scn_fx.Engine and the custom operators instead.";
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const scn::Error& e) {
      nb::object type = nb::module_::import_("scn_fx.errors").attr(python_error(e.kind()));
      // whatever a damaged file called its nodes, the message must come through
      nb::object text =
          nb::steal(PyUnicode_DecodeUTF8(e.what(), Py_ssize_t(std::strlen(e.what())), "replace"));
      PyErr_SetObject(type.ptr(), text.ptr());
    }
  });
  scn::python::bind_functions(m);
  scn::python::bind_convolutions(m);
  scn::python::bind_tools(m);
  scn::python::bind_engine(m);
  scn::python::bind_cuda(m);
  scn::python::bind_cuda_operators(m);
}
