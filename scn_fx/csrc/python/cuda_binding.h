// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace scn::python {

/// The engine on a GPU, and what is known about GPUs.
void bind_cuda(nanobind::module_& m);

}  // namespace scn::python
