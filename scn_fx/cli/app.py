# SPDX-License-Identifier: Apache-2.0
"""The group of commands: loads a command's module when it is used, and turns errors into one clear line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from scn_fx import __version__
from scn_fx.errors import MissingPackageError, ScnError
from scn_fx.quant.console import tidy_warnings
from scn_fx.quant.options import Interrupted, Refusal

__all__ = ["COMMANDS", "command"]

COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("scn_fx.cli.demo", "command", "Run the whole path on a LiDAR frame and prove the result."),
    "calibrate": (
        "scn_fx.quant.__main__",
        "main",
        "Find int8 ranges on LiDAR frames and write a calibration cache.",
    ),
    "sensitivity": (
        "scn_fx.cli.sensitivity",
        "command",
        "Rank the layers of a network by what each alone costs in int8.",
    ),
    "retrofit": (
        "scn_fx.cli.retrofit",
        "command",
        "Calibrate a float16 ONNX file whose model is not at hand.",
    ),
    "export": ("scn_fx.cli.export", "command", "Write the ONNX file of a model."),
    "quantize": (
        "scn_fx.cli.quantize",
        "command",
        "Calibrate, export and compare in one go.",
    ),
    "inspect": ("scn_fx.cli.inspect", "command", "Show the nodes, ranges and precisions of an ONNX file."),
    "plan": ("scn_fx.cli.plan", "command", "Make a plan of an ONNX file for one kind of processor."),
    "run": ("scn_fx.cli.run", "command", "Run an ONNX file or a plan on a frame."),
    "compare": ("scn_fx.cli.compare", "command", "Compare a model with its ONNX file, or two result files."),
    "report": ("scn_fx.cli.report.command", "command", "Show an ONNX file on frames as one HTML page."),
    "bench": (
        "scn_fx.cli.bench",
        "command",
        "Time the engine beside spconv, layer by layer too.",
    ),
    "env": ("scn_fx.cli.env", "command", "Show what is installed and what this machine can run."),
}
"""Name -> module, attribute, summary. The summaries are here so that `scn-fx --help` imports no command."""

_EXTRAS = {
    "torch": "torch",
    "onnx": "export",
    "onnxscript": "export",
    "modelopt": "bridge",
    "matplotlib": "plot",
    "spconv": "spconv-cpu",
    "cumm": "spconv-cpu",
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(module), attribute)
        found.name = cmd_name  # pages made from the commands call them by it
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with tidy_warnings():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted() from error
        except ScnError as error:
            raise Refusal(str(error)) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRAS:
                raise
            missing = MissingPackageError.of(package, _EXTRAS[package], f"scn-fx {ctx.invoked_subcommand}")
            raise Refusal(str(missing)) from error
        except RuntimeError as error:
            if "can't start new thread" not in str(error):
                raise
            raise Refusal(
                "The system allows this process no more threads. Allow it more (ulimit -u; of a container "
                "its limit of pids), or show no progress (--quiet)."
            ) from error
        except BrokenPipeError:
            raise  # the reader has seen enough (`| head`): click ends quietly
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise Refusal(f"{where}{error.strerror or error}. Check the path.") from error


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="scn-fx COMMAND --help explains a command. Start with: scn-fx demo",
)
@click.version_option(__version__, prog_name="scn-fx")
def command() -> None:
    """scn-fx: spconv models to calibrated INT8 ONNX, and an engine that runs it."""
