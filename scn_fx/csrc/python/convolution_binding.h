// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace scn::python {

/// Single convolutions: the operator, and any kernel on any device.
void bind_convolutions(nanobind::module_& m);

}  // namespace scn::python
