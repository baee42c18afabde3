# SPDX-License-Identifier: Apache-2.0
"""Importing one file of a checkout without installing its repository.

Packages of the checkout are made without running their `__init__.py`, which in most of these repositories
imports everything, CUDA extensions included; a name that a file wants from a package is looked up where the
package's `__init__.py` imports it from. What is missing becomes a stand-in.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.models.originals.shims import SHIMS
from benchmarks.models.originals.stubs import StubModule
from scn_fx.errors import ArgumentError

__all__ = ["Checkout", "folder_of", "opened"]

SPCONV_1 = {"spconv": "spconv.pytorch", "spconv.modules": "spconv.pytorch.modules"}
"""Files written for spconv 1.x import it by its old names."""


def folder_of(originals: Path, repository: str) -> Path:
    """Where a repository "owner/name" is checked out below a folder: ``<owner>+<name>``."""
    return originals / repository.replace("/", "+")


class Checkout:
    """A repository whose files can be imported, as long as `opened` is active; `voxels` is for its frames."""

    def __init__(self, folder: Path, voxels: int = 500) -> None:
        self.folder, self.voxels = folder, voxels

    def load(self, module: str) -> Any:
        """Import a module of the checkout by its dotted path below one of its roots."""
        return importlib.import_module(module)


@contextmanager
def opened(
    originals: Path,
    repositories: Sequence[str],
    roots: Sequence[str] = ("",),
    aliases: Mapping[str, str] | None = None,
    voxels: int = 500,
) -> Iterator[Checkout]:
    """Make the files of some checkouts importable; afterwards no module of theirs is left.

    Without a GPU, `Tensor.cuda` hands the tensor back meanwhile, for constructors that call it.

    Args:
        originals: folder of the checkouts.
        repositories: "owner/name"; the first one has the network, the others what it imports.
        roots: folders of the first one that its imports start from.
        aliases: modules that stand for others while files are imported; "" for a stand-in.
        voxels: about how many the frames of recipes have.

    Raises:
        ArgumentError: a checkout is not there.
    """
    for repository in repositories:
        if not folder_of(originals, repository).is_dir():
            raise ArgumentError(
                f"{folder_of(originals, repository)} is not there. Check {repository} out into it, for "
                f"example with git clone https://github.com/{repository}."
            )
    first = folder_of(originals, repositories[0])
    places = [first / root for root in roots] + [folder_of(originals, r) for r in repositories[1:]]
    finder = _Finder(places, dict(aliases or {}))
    before = dict(sys.modules)
    for name in finder.aliases:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, finder)
    path, cuda = list(sys.path), torch.Tensor.cuda
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    try:
        yield Checkout(first, voxels)
    finally:
        torch.Tensor.cuda = cuda  # type: ignore[method-assign]
        sys.meta_path.remove(finder)
        sys.path[:] = path
        for name in finder.made:
            sys.modules.pop(name, None)
        for name in finder.aliases:
            if name in before:
                sys.modules[name] = before[name]


class _Finder:
    """Finds modules of the checkouts, aliases, and, for files of the checkouts alone, stand-ins."""

    def __init__(self, places: Sequence[Path], aliases: dict[str, str]) -> None:
        self.places, self.aliases, self.made = places, aliases, set[str]()
        self._asking = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """For the import system: how to make a module, or None to let others find it."""
        if self._asking:
            return None
        if name in self.aliases:
            loader = _Alias(self.aliases[name]) if self.aliases[name] else _StandIn()
            return self._made(name, loader, package=True)
        for place in self.places:
            base = place.joinpath(*name.split("."))
            if base.is_dir() and (name.partition(".")[0] not in sys.stdlib_module_names):
                return self._made(name, _Package(base), package=True)
            file = base.with_suffix(".py")
            if file.is_file() and name.partition(".")[0] not in sys.stdlib_module_names:
                self.made.add(name)
                return importlib.util.spec_from_file_location(name, file)
        parent = sys.modules.get(name.rpartition(".")[0])
        ours = isinstance(parent, StubModule | _LazyPackage) or self._is_ours(sys._getframe(1))
        if not ours or (parent is None and self._installed(name)):
            return None
        if parent is not None and not isinstance(parent, StubModule | _LazyPackage) and self._installed(name):
            return None
        return self._made(name, _StandIn(), package=True)

    def _installed(self, name: str) -> bool:
        self._asking = True
        try:
            return importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            return False
        finally:
            self._asking = False

    def _is_ours(self, frame: types.FrameType | None) -> bool:
        """Whether the import statement stands in a file of the checkouts."""
        while frame is not None:
            file = frame.f_code.co_filename
            if not file.startswith("<frozen importlib") and not file.startswith("<not installed"):
                return any(file.startswith(str(place)) for place in self.places)
            frame = frame.f_back
        return False

    def _made(self, name: str, loader: Any, package: bool = False) -> Any:
        self.made.add(name)
        return importlib.machinery.ModuleSpec(name, loader, is_package=package)


class _Alias:
    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: Any) -> Any:
        module = types.ModuleType(spec.name)
        module.__dict__.update(
            {k: v for k, v in vars(importlib.import_module(self._name)).items() if not k.startswith("__")}
        )
        module.__path__ = []
        return module

    def exec_module(self, module: Any) -> None:
        """Nothing to run."""


class _StandIn:
    def create_module(self, spec: Any) -> Any:
        module = StubModule(spec.name)
        vars(module).update(SHIMS.get(spec.name, {}))
        return module

    def exec_module(self, module: Any) -> None:
        """Nothing to run."""


class _Package:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create_module(self, spec: Any) -> Any:
        return _LazyPackage(spec.name, self._folder)

    def exec_module(self, module: Any) -> None:
        """Its `__init__.py` is not run."""


class _LazyPackage(types.ModuleType):
    """A package whose names are found without running its `__init__.py`, where that only imports them."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.__path__ = [str(folder)]
        file = folder / "__init__.py"
        self._folder = folder
        self._tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
        self._exports = {
            alias.asname or alias.name: ("." * part.level + (part.module or ""), alias.name)
            for part in self._tree.body
            if isinstance(part, ast.ImportFrom)
            for alias in part.names
        }
        self._stars = [
            "." * part.level + (part.module or "")
            for part in self._tree.body
            if isinstance(part, ast.ImportFrom) and part.names[0].name == "*"
        ]
        self._executed = False

    def __setattr__(self, name: str, value: Any) -> None:
        """The import system stores a submodule here; a function of its name is what the package exports."""
        if isinstance(value, types.ModuleType) and self.__dict__.get("_exports", {}).get(name) == (
            f".{name}",
            name,
        ):
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._exports:
            source, original = self._exports[name]
            return getattr(importlib.import_module(source, self.__name__), original)
        if (self._folder / name).is_dir() or (self._folder / f"{name}.py").is_file():
            return importlib.import_module(f"{self.__name__}.{name}")
        for source in self._stars:
            module = importlib.import_module(source, self.__name__)
            if name in vars(module):
                return vars(module)[name]
        if not self._executed and any(not isinstance(part, ast.ImportFrom) for part in self._tree.body):
            self._executed = True
            file = str(self._folder / "__init__.py")
            vars(self).update(__file__=file, __package__=self.__name__)
            with contextlib.suppress(Exception):  # names that it binds before it fails are there
                exec(compile(self._tree, file, "exec"), vars(self))
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
