# SPDX-License-Identifier: Apache-2.0
"""Which instruction sets a processor offers, and the variable that picks one."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from scn_fx import _core
from scn_fx.errors import ArgumentError
from tests.core.instruction_sets import SUPPORTED, instruction_set

BEST_FIRST = ("amx", "avx512vnni", "avxvnni", "avx2", "portable")
FLAGS = {
    "avx2": {"avx2", "fma", "f16c"},
    "avxvnni": {"avx_vnni"},
    "avx512vnni": {"avx512_vnni", "avx512bw", "avx512vl", "avx512dq"},
    "amx": {"amx_tile", "amx_int8", "avx512_vnni"},
}


def test_the_best_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in BEST_FIRST if name in SUPPORTED] == SUPPORTED and SUPPORTED[-1] == "portable"
    for unset in (None, ""):
        if unset is None:
            monkeypatch.delenv("SCN_FX_ISA", raising=False)
        else:
            monkeypatch.setenv("SCN_FX_ISA", unset)
        assert _core.cpu_features()["isa"] == SUPPORTED[0]


def test_what_is_supported_is_what_the_system_says() -> None:
    """Flags of /proc/cpuinfo; AMX may be refused to a process, and old kernels do not name AVX-VNNI."""
    if platform.machine() != "x86_64":
        assert SUPPORTED == ["portable"]
        return
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).partition(":")[2].split())
    for name, needed in FLAGS.items():
        if name in SUPPORTED:
            assert needed <= flags or name == "avxvnni", name
        elif name in ("avx2", "avx512vnni"):
            assert not needed | FLAGS["avx2"] <= flags, name


@pytest.mark.parametrize("name", SUPPORTED)
def test_each_can_be_chosen(name: str) -> None:
    with instruction_set(name):
        assert _core.cpu_features() == {"isa": name, "supported": SUPPORTED}


@pytest.mark.parametrize("name", ["sse2", "AVX2", "avx2 ", "portable,avx2"])
def test_another_is_an_error_that_names_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCN_FX_ISA", name)
    with pytest.raises(ArgumentError, match=f"SCN_FX_ISA is '{name}'.*support: {' '.join(SUPPORTED)}"):
        _core.cpu_features()
