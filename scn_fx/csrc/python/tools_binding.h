// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace scn::python {

/// What the package, its tests and its benchmarks need besides operators and engines.
void bind_tools(nanobind::module_& m);

}  // namespace scn::python
