// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace scn::python {

/// The single operators: maps, add, scatter. Convolutions are in convolution_binding.h.
void bind_functions(nanobind::module_& m);

}  // namespace scn::python
