# SPDX-License-Identifier: Apache-2.0
"""The public function: trace, fuse, verify, and hand over a graph without leftovers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn

from scn_fx.capture.arguments import Arguments
from scn_fx.capture.export import exported_graph
from scn_fx.capture.finish import finished, warn_of_axes
from scn_fx.capture.foreign import unwrapped
from scn_fx.capture.given_frame import given_batch_size, given_shape
from scn_fx.capture.module_values import path_of_begin
from scn_fx.capture.outputs import Path, choices, output_paths, output_text
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import CaptureError, CaptureWarning, ScnError
from scn_fx.graph import metadata
from scn_fx.input_grid import set_grid
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.operators.dialects import DIALECTS, LIBSPCONV
from scn_fx.passes import fusing_passes, run_passes

__all__ = ["capture"]

_AXES = ("zyx", "xyz")


def capture(
    model: nn.Module,
    args: Sequence[Any],
    output: Any = 0,
    *,
    kwargs: Mapping[str, Any] | None = None,
    output_bound: int = 200_000,
    axes: str = "zyx",
    grid: VoxelGrid | None = None,
    input: Any = None,
    batch_size: int | None = None,
    spatial_shape: Sequence[int] | None = None,
    dialect: str = LIBSPCONV,
) -> fx.GraphModule:
    """Capture an spconv model as a fused float graph of scn-fx operators.

    The model is not modified and needs no edits; nothing of it is run on data. Tensors among `args` become
    the graph's inputs, in their order (an spconv `SparseConvTensor` gives two: features and indices);
    everything else in `args`, such as the batch size, becomes constant. The number of voxels stays free,
    zero included.

    Args:
        model: an `nn.Module` in evaluation mode with float32 parameters. Wrappers for training on several
            devices and of torch.compile are looked through.
        args: positional arguments of the model's forward, any nesting of tuples, lists and dicts: features
            float32 [N, C] and indices int32 [N, 4] (batch, z, y, x) of an example frame with N >= 2. Those of
            a 2D network (pillars) are [N, 3] (batch, y, x), of a 1D one [N, 2] (batch, x).
        output: which of the model's outputs the graph returns: an index, a key, or a tuple of them that
            leads into nested outputs, such as ``(1, "conv3")``. A list gives several outputs of one run, each
            entry an output as above; a list of one is that output. The path of a module of the model
            (``"backbone.conv_out"``), where the model's result has no such key, is what that module returned
            at its last call. What no output depends on need not be supported, and is left out.
        kwargs: arguments of the forward by keyword.
        output_bound: most sites that any layer may have; buffers of an engine are sized by it.
        axes: order of the spatial columns in the model's indices, "zyx" or "xyz"; in two dimensions (y, x) or
            (x, y).
        grid: range and voxel size of the frames that the network was trained with, a
            `scn_fx.lidar.VoxelGrid` (of a 2D network with one voxel along z). The graph and files exported
            from it record it, and frames that are known to be made for another grid are refused.
        input: path of a module after which the captured part begins, such as a reader that makes voxel
            features of points: `args` stay those of the model, but the graph takes the features float [N, C]
            that the module returns, and frames are (features, indices). A tuple of the path and a key names
            one of several values that it returns.
        batch_size: of the frames, for a forward that computes it from them. It takes the place of the one
            that the forward makes its `SparseConvTensor` with, and answers what is computed from indices.
        spatial_shape: the grid, in the order of the index columns, in the same way. The forward may then put
            the indices together itself, as Pointcept's SpUNet does from `grid_coord` and `offset`: these
            indices, int32 [N, 4], are an input of the graph, and frames are (features, indices).
        dialect: of the files that the graph is for. For "libspconv", which has neither, a concatenation
            becomes a sum of convolutions, and a BatchNorm that goes into no convolution becomes one of its
            own. For "scn_fx", which the engine alone reads, they are layers of their own.

    Returns:
        A `torch.fx.GraphModule` that returns a dense map, or (features [M, C], indices int32 [M, 1 +
        dimensions]) for a sparse output, or a tuple of those, in the order of the list, for several outputs.
        Its ``meta["scn_fx"]`` holds axes, dimensions, input names, and notes on layers that could not be
        fused.

    Raises:
        CaptureError: an unsupported module or operator (named by its path and class), training mode, a wrong
            `output` or one that is the same value as another, a wrong `input`, or arguments without features
            and indices.
        GridError: `grid` has another shape than the network's input.
        MissingPackageError: spconv is not installed.
    """
    if dialect not in DIALECTS:
        raise CaptureError(f"dialect must be one of {', '.join(sorted(DIALECTS))}, got {dialect!r}.")
    if axes not in _AXES:
        raise CaptureError(f"axes must be one of {', '.join(_AXES)}, got {axes!r}.")
    if isinstance(output_bound, bool) or not isinstance(output_bound, int) or output_bound < 1:
        raise CaptureError(f"output_bound must be an integer >= 1 (a number of sites), got {output_bound!r}.")
    _check_model(model)
    paths = output_paths(output)
    model = unwrapped(model)
    _check_parameters(model)
    given = given_batch_size(batch_size), given_shape(spatial_shape)
    inputs = Arguments.of(model, args, kwargs, made_inside=given[1] is not None)
    begin = None if input is None else path_of_begin(input, model)

    def new_tracing(wanted: tuple[Path, ...]) -> Tracing:
        tracing = Tracing(model, output_bound=output_bound, axes=axes)
        tracing.batch_size, tracing.spatial_shape = given
        tracing.begin = begin
        tracing.want(path[0] for path in wanted if path)
        return tracing

    def refusal(path: Path) -> CaptureError | None:
        return _refusal(model, inputs, path, new_tracing((path,)))

    tracing = new_tracing(paths)
    tracing.refusal = refusal
    graph = exported_graph(model, inputs, paths, tracing)
    chosen = [output_text(path) for path in paths]
    notes = run_passes(graph, fusing_passes(tracing.paths, choices(tracing.outputs), chosen, dialect))
    captured = finished(graph, axes, tuple(dict.fromkeys((*tracing.notes, *notes))))
    warn_of_axes(captured)
    indices = str(metadata(captured)["indices"])
    if indices not in inputs.names and inputs.has_indices:
        warnings.warn(
            f"The forward computes the indices of its sparse tensor, and does not take those of args as they "
            f"are. The graph takes what it computes, {indices!r}: frames are (features, indices) as the "
            "SparseConvTensor gets them.",
            CaptureWarning,
            stacklevel=2,
        )
    if grid is not None:
        set_grid(captured, grid)
    return captured


def _refusal(model: nn.Module, inputs: Arguments, path: Path, tracing: Tracing) -> CaptureError | None:
    """Why an output cannot be captured, None if it can: for errors, so that what they advise works."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = exported_graph(model, inputs, (path,), tracing)
            run_passes(graph, fusing_passes(tracing.paths))
            finished(graph, tracing.axes, ())
    except ScnError as error:
        return error if isinstance(error, CaptureError) else CaptureError(str(error))
    return None


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise CaptureError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if model.training:
        raise CaptureError(
            f"The model ({type(model).__name__}) is in training mode; capture needs model.eval(), "
            "so that BatchNorm uses its running statistics."
        )


def _check_parameters(model: nn.Module) -> None:
    """Every parameter must have a name of its own, and values."""
    known: dict[str, nn.Module] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if known.setdefault(path, module) is not module:
            raise CaptureError(
                f"Two modules of the model are called {path!r}: an attribute has a dot in its name, and "
                "their weights have one key in the state dict. Rename that attribute."
            )
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(value):
            raise CaptureError(
                f"{name!r} has no shape yet, as its layer is a lazy one. Run the model on a frame once, then "
                "capture it."
            )
        if value.is_meta:
            raise CaptureError(
                f"{name!r} has no values: it is on the device 'meta'. Load a checkpoint first, with "
                "model.load_state_dict(state, assign=True)."
            )
