// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace scn::python {

/// The ONNX reader and the engine.
void bind_engine(nanobind::module_& m);

}  // namespace scn::python
