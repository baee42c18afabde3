// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace scn::python {

void bind_cuda_operators(nanobind::module_& m);

}  // namespace scn::python
