# SPDX-License-Identifier: Apache-2.0
"""What compilers make of the loops of products: nothing of them may wander to the stack.

GCC once kept the sums of AVX-512 there. No result is wrong then: a layer takes twice as long, and so does the
loop that measures the processor's peak, which hides it. kernels_portable.cpp is left out: without intrinsics
no loop can name registers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from tests.core.compiled_kernels import COMPILERS, compiled
from tests.core.machine_code import Instruction, Loop, parse

PRODUCT = re.compile(r"vpdpbusd|vpdpwssd|vpmaddubsw|vpmaddwd|vfn?madd|tdpb")
EXPECTED = {
    "kernels_avx2.cpp": {"vpmaddubsw", "vpmaddwd", "vfmadd"},
    "kernels_avxvnni.cpp": {"vpdpbusd", "vfmadd"},
    "kernels_avx512vnni.cpp": {"vpdpbusd", "vfmadd"},
    "kernels_amx.cpp": {"tdpb"},
}
"""Products that loops of each file hold; there may be others."""
PEAKS = [
    ("kernels_avx2.cpp", "float_loop", "vfmadd", 12),
    ("kernels_avxvnni.cpp", "float_loop", "vfmadd", 12),
    ("kernels_avx512vnni.cpp", "float_loop", "vfmadd", 12),
    ("kernels_avx512vnni.cpp", "int8_loop", "vpdpbusd", 12),
    ("kernels_amx.cpp", "int8_loop", "tdpb", 4),
]
"""Loops that hold products alone, and how many sums they have. The int8 loop of AVX2 and AVX-VNNI is a small
layer by design."""
COMPARES = re.compile(r"cmp|test")
CONTROL = re.compile(r"(add|sub|inc|dec|cmp|test|j\w+?|nop)[lqw]?")
# Epilogues scale with fused multiply-adds too, among calls and choices around which registers may be saved.
EPILOGUE = re.compile(r"\b(finish\w*|rare_activation|activate|convert_\w+)\b")

each_compiler = pytest.mark.parametrize("compiler", COMPILERS)
each_file = pytest.mark.parametrize("file", EXPECTED)


def kind(instruction: Instruction) -> str:
    """The product of `PRODUCT` that it is; empty for others."""
    found = PRODUCT.match(instruction.name)
    return found[0] if found else ""


def products(instructions: Sequence[Instruction]) -> list[Instruction]:
    return [i for i in instructions if kind(i)]


def product_loops(compiler: str, file: str) -> list[Loop]:
    """The innermost loops with products, those of epilogues left out."""
    return [
        loop
        for function in compiled(compiler, file)
        if products(function.instructions) and not EPILOGUE.search(function.name)
        for loop in function.innermost_loops()
        if products(loop.instructions)
    ]


def traffic(
    loops: Sequence[Loop], counts: Callable[[Loop, Sequence[Instruction]], Sequence[Instruction]]
) -> str:
    """A text about the stack traffic of loops, for people; empty if there is none.

    `counts` picks what is wrong of the instructions of a loop that touch the stack.
    """
    told = []
    for loop in loops:
        found = counts(loop, loop.stack_traffic)
        if found:
            size = f"{len(loop.instructions)} instructions, {len(products(loop.instructions))} products"
            told.append("\n".join([f"{size}; on the stack:", *(f"  {i}" for i in found), f"in {loop}"]))
    return "\n\n".join(told)


def vectors(loop: Loop, touching: Sequence[Instruction]) -> Sequence[Instruction]:
    """Any."""
    return [i for i in touching if i.handles_vectors]


def scalars(loop: Loop, touching: Sequence[Instruction]) -> Sequence[Instruction]:
    """Addresses and counters that are stored, or more loads of them than one for four products.

    Six to eight rows have as many addresses; two loads run beside each product.
    """
    found = [i for i in touching if not i.handles_vectors]
    stored = [i for i in found if i.destination.endswith(")") and not COMPARES.match(i.name)]
    return found if 4 * len(found) > len(products(loop.instructions)) else stored


@each_compiler
@each_file
def test_loops_of_all_products_are_found(compiler: str, file: str) -> None:
    found = {kind(i) for loop in product_loops(compiler, file) for i in loop.instructions}
    assert found >= EXPECTED[file]


@each_compiler
@each_file
def test_vectors_stay_in_registers(compiler: str, file: str) -> None:
    told = traffic(product_loops(compiler, file), vectors)
    assert not told, f"{compiler} keeps vectors of {file} on the stack:\n{told}"


@each_compiler
@each_file
def test_addresses_and_counters_stay_in_registers(compiler: str, file: str) -> None:
    told = traffic(product_loops(compiler, file), scalars)
    assert not told, f"{compiler} keeps addresses or counters of {file} on the stack:\n{told}"


@each_compiler
@pytest.mark.parametrize(("file", "name", "product", "sums"), PEAKS)
def test_peak_loops_hold_products_alone(compiler: str, file: str, name: str, product: str, sums: int) -> None:
    found = [loop for loop in product_loops(compiler, file) if f"::{name}(" in loop.function.name]
    assert found, f"{compiler}: no loop with {product} in {name} of {file}"
    for loop in found:
        made = products(loop.instructions)
        others = [i for i in loop.instructions if i not in made and not CONTROL.fullmatch(i.name)]
        assert not others, f"{[str(i) for i in others]} in {loop}"
        assert not [i for i in loop.instructions if i.memory], f"a memory operand in {loop}"
        assert {kind(i) for i in made} == {product}, loop
        # a compiler may unroll the loop
        assert len(made) % sums == 0 and len({i.destination for i in made}) == sums, loop


SAMPLE = """
0000000000000000 <outer(long)>:
   0:\tpush   %rbp
   1:\tmov    %rsp,%rbp
   4:\tlea    -0x40(%rbp),%rax
   8:\tmov    0x8(%rdi),%rcx
   c:\tvpdpbusd %zmm1,%zmm2,%zmm3
  10:\tvmovdqa64 %zmm3,(%rax,%rdx,4)
  14:\tvpaddd -0x80(%rbp),%zmm4,%zmm4
  18:\tlea    0x8(%rsp),%rsi
  1c:\tmovzbl (%rdi),%r8d
  20:\tje     28 <outer(long)+0x28>
  22:\tjne    c <outer(long)+0xc>
  24:\tdec    %rbx
  26:\tjne    8 <outer(long)+0x8>
  28:\tret
  29:\tjmp    24 <outer(long)+0x24>

0000000000000030 <general(long)>:
  30:\tmov    0x10(%rbp),%rax
  34:\tcmp    %rax,0x8(%rsp)
  38:\tnotrack jne 30 <general(long)>
"""


def test_the_reader_of_machine_code() -> None:
    outer, general = parse(SAMPLE)
    (inner,) = outer.innermost_loops()
    assert [i.address for i in inner.instructions] == [0xC, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x22]
    assert [i.address for i in inner.stack_traffic] == [0x10, 0x14]
    assert [i.destination for i in inner.instructions[:3]] == ["%zmm3", "(%rax,%rdx,4)", "%zmm4"]
    (loop,) = general.innermost_loops()  # %rbp is no frame there
    assert [str(i) for i in loop.stack_traffic] == ["    34: cmp            %rax,0x8(%rsp)"]
    assert not loop.stack_traffic[0].handles_vectors and inner.stack_traffic[0].handles_vectors


def test_what_a_loop_may_load_from_the_stack() -> None:
    (function,) = parse(LOADS)
    (loop,) = function.innermost_loops()
    load, compare, add = loop.stack_traffic
    assert scalars(loop, []) == [] and scalars(loop, [load, compare]) == []
    assert scalars(loop, [load, add]) == [add] and scalars(loop, [load, compare, load]) != []


LOADS = (
    """
0000000000000000 <rows(long)>:
   0:\tmov    0x8(%rsp),%rax
   5:\tcmp    %rax,0x10(%rsp)
   9:\tadd    $0x8,0x10(%rsp)
"""
    + "".join(f"  {16 + i:2x}:\tvpdpbusd %zmm1,%zmm2,%zmm3\n" for i in range(8))
    + """
  30:\tjne    0 <rows(long)>
  34:\tret
"""
)
