# SPDX-License-Identifier: Apache-2.0
"""A wheel of this source tree, and environments to install it into: made once for all tests and processes."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tests.test_project import PROJECT, extras

__all__ = ["ROOT", "Environment", "local_wheel", "requirements", "run", "stub_wheels"]

ROOT = Path(__file__).parents[2]
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run(command: Iterable[str | Path], **variables: str) -> str:
    """What a command prints; it must succeed. Pip asks no index and reads nobody's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    alone = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env={**kept, **alone, **variables})
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _newest_source() -> float:
    """When the last of the files changed that a wheel is made of."""
    files = [ROOT / "pyproject.toml", ROOT / "CMakeLists.txt", ROOT / "README.md"]
    for folder in ("cmake", "quant", "scn_fx"):
        found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
        files += [path for path in found if path.suffix not in (".pyc", ".so")]
    return max(path.stat().st_mtime for path in files)


@cache
def local_wheel() -> Path:
    """The wheel, built in the folder where `make` builds, so that little is compiled a second time."""
    folder = ROOT / "build" / "wheel"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building
        wheels = list(folder.glob("*.whl"))
        if len(wheels) == 1 and wheels[0].stat().st_mtime > _newest_source():
            return wheels[0]
        for old in wheels:
            old.unlink()
        alone = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
        run([sys.executable, "-m", "pip", "wheel", *alone, ROOT], PATH=TOOLS)
    (wheel,) = folder.glob("*.whl")
    return wheel


def requirements() -> dict[str, list[str]]:
    """Requirements of each extra, those of scn-fx itself resolved; "" has those of the engine."""
    known = extras()
    (alone,) = re.findall(r"^dependencies = \[(.*)\]$", PROJECT, re.M)

    def resolved(extra: str) -> list[str]:
        found = []
        for requirement in known[extra]:
            own = re.fullmatch(r"scn-fx\[(.+)\]", requirement)
            found += [r for name in own[1].split(",") for r in resolved(name)] if own else [requirement]
        return found

    return {"": re.findall(r'"([^"]+)"', alone), **{extra: resolved(extra) for extra in known}}


def stub_wheels(folder: Path, needed: Iterable[str]) -> None:
    """Empty wheels that meet these requirements, in place of an index's: enough for pip to resolve."""
    for requirement in needed:
        name, version = re.fullmatch(r"([\w.-]+)(?:[>=]=([\w.]+))?.*", requirement).groups(default="1.0")
        stem = f"{name.replace('-', '_')}-{version}"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            about = f"{stem}.dist-info"
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")


class Environment:
    """A new virtual environment in `folder`, whose pip finds the wheels of `wheels` alone."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        run([sys.executable, "-m", "venv", folder])
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        (self._packages,) = folder.glob("lib/python*/site-packages")
        self._wheels = wheels
        self._new = self.state()

    def pip(self, *words: str) -> str:
        return run([self.python, "-m", "pip", *words], PIP_FIND_LINKS=str(self._wheels))

    def installed(self) -> set[str]:
        """Names of the distributions, in small letters and with hyphens."""
        return {
            path.name.partition("-")[0].lower().replace("_", "-")
            for path in self._packages.glob("*.dist-info")
        }

    def state(self) -> Path:
        """A copy of what is installed, for `restore`."""
        copy = Path(tempfile.mkdtemp(dir=self.bin.parent)) / "packages"
        return Path(shutil.copytree(self._packages, copy))

    def restore(self, state: Path | None = None) -> None:
        """Back to a state; None is the new environment's."""
        shutil.rmtree(self._packages)
        shutil.copytree(state or self._new, self._packages)
