// SPDX-License-Identifier: Apache-2.0
// Python types that signatures name, and with them the stub _core.pyi, which nanobind writes from them (`make
// stub`). They hold any object: what comes in is checked where it is read, with errors that say more than a
// type's name.
#pragma once

#include <nanobind/nanobind.h>

namespace scn::python {

namespace nb = nanobind;

inline bool any_object(PyObject*) { return true; }

class NumpyArray : public nb::object {
  NB_OBJECT_DEFAULT(NumpyArray, nb::object, "numpy.typing.NDArray", any_object)
};

/// What any library calls an array: numpy's, or with `__dlpack__`.
class AnyPython : public nb::object {
  NB_OBJECT_DEFAULT(AnyPython, nb::object, "typing.Any", any_object)
};

/// An ONNX file: its path or its bytes.
class ModelSource : public nb::object {
  NB_OBJECT_DEFAULT(ModelSource, nb::object, "str | bytes", any_object)
};

class GridSizes : public nb::object {
  NB_OBJECT_DEFAULT(GridSizes, nb::object, "collections.abc.Sequence[int]", any_object)
};

/// A voxel grid: (point_range, voxel_size, extra_z, float64, max_points).
class PlainGrid : public nb::object {
  NB_OBJECT_DEFAULT(PlainGrid, nb::object, "tuple[typing.Any, ...] | None", any_object)
};

/// One output of a frame: a dense map, or features and indices.
class FrameOutput : public nb::object {
  NB_OBJECT_DEFAULT(FrameOutput, nb::object,
                    "numpy.typing.NDArray | tuple[numpy.typing.NDArray, numpy.typing.NDArray]", any_object)
};

using PlainData = nb::typed<nb::dict, nb::str, AnyPython>;
using PlainRows = nb::typed<nb::list, PlainData>;
using FrameOutputs = nb::typed<nb::list, FrameOutput>;
using PlainTuple = nb::typed<nb::tuple, AnyPython, nb::ellipsis>;
using VoxelArrays = nb::typed<nb::tuple, NumpyArray, NumpyArray, int, int>;
using TwoArrays = nb::typed<nb::tuple, NumpyArray, NumpyArray>;

}  // namespace scn::python
