# SPDX-License-Identifier: Apache-2.0
"""Disassembled object files: their functions, and the innermost loops of these."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Function", "Instruction", "Loop", "functions", "parse"]

Graph = Mapping[int, list[int]]

_HEAD = re.compile(r"[0-9a-f]+ <(?P<name>.*)>:")
_LINE = re.compile(r"\s*(?P<address>[0-9a-f]+):\t(?P<prefixes>(?:(?:lock|rep\w*|notrack|bnd|\{\w+\})\s+)*)"
                   r"(?P<name>\S+)\s*(?P<operands>.*?)(?:\s+#.*)?$")  # fmt: skip
_ADDRESS = re.compile(r"\((?P<registers>,?%[^)]*)\)")


@dataclass(frozen=True)
class Instruction:
    """As objdump writes it, in AT&T's order: the destination is the last operand."""

    address: int
    name: str
    operands: str

    def __str__(self) -> str:
        return f"{self.address:6x}: {self.name:<14} {self.operands}".rstrip()

    @property
    def is_jump(self) -> bool:
        """Whether it may continue elsewhere in the function; a call comes back."""
        return self.name.startswith("j")

    @property
    def always_leaves(self) -> bool:
        """Whether what follows is never next."""
        return self.name.startswith(("jmp", "ret", "ud2", "hlt"))

    @property
    def target(self) -> int | None:
        """Where a direct jump goes."""
        found = re.match(r"[0-9a-f]+\b", self.operands) if self.is_jump else None
        return int(found[0], 16) if found else None

    @property
    def memory(self) -> tuple[str, ...]:
        """Registers of the address of its operand in memory; none without such an operand."""
        found = None if self.name.startswith(("lea", "nop")) else _ADDRESS.search(self.operands)
        return tuple(found["registers"].split(",")) if found else ()

    @property
    def destination(self) -> str:
        """Its last operand."""
        return re.split(r",(?![^(]*\))", self.operands)[-1]

    @property
    def handles_vectors(self) -> bool:
        """Whether a vector or a tile is among its operands."""
        return re.search(r"%[xyzt]mm", self.operands) is not None


@dataclass(frozen=True)
class Function:
    """A function, or a part of one that its compiler put elsewhere."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def frame_registers(self) -> tuple[str, ...]:
        """Registers that hold the address of its stack frame: %rbp is one only where it is set as one."""
        framed = any((i.name, i.operands) == ("mov", "%rsp,%rbp") for i in self.instructions)
        return ("%rsp", "%rbp") if framed else ("%rsp",)

    def innermost_loops(self) -> Iterator[Loop]:
        """Its loops that contain no other loop."""
        by_address = {i.address: i for i in self.instructions}
        follows: dict[int, list[int]] = {}
        for number, instruction in enumerate(self.instructions):
            after = [] if instruction.target is None else [instruction.target]
            if not instruction.always_leaves and number + 1 < len(self.instructions):
                after.append(self.instructions[number + 1].address)
            follows[instruction.address] = [address for address in after if address in by_address]
        for body in _innermost(follows, set(follows)):
            yield Loop(self, tuple(by_address[address] for address in sorted(body)))


@dataclass(frozen=True)
class Loop:
    """A loop of a function, its instructions by ascending address."""

    function: Function
    instructions: tuple[Instruction, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.function.name}:", *(f"  {i}" for i in self.instructions)])

    @property
    def stack_traffic(self) -> list[Instruction]:
        """Its instructions that read or write the stack, also by an address that was taken before it."""
        used = {register for i in self.instructions for register in i.memory}
        frame = {register for register in used if self._points_to_stack(register)}
        return [i for i in self.instructions if i.name.startswith(("push", "pop")) or frame & {*i.memory}]

    def _points_to_stack(self, register: str) -> bool:
        frame = self.function.frame_registers
        if register in frame:
            return True
        begin = self.instructions[0].address
        before = [i for i in self.function.instructions if i.address < begin and i.destination == register]
        taken = re.search(r"\((%\w+)", before[-1].operands) if before else None
        return taken is not None and before[-1].name.startswith("lea") and taken[1] in frame


def _innermost(follows: Graph, nodes: set[int]) -> Iterator[set[int]]:
    """The cycles among `nodes` that contain no other: without the instruction that it is entered at, an outer
    loop falls apart into its inner ones."""
    for part in _connected(follows, nodes):
        inner = list(_innermost(follows, part - {_entry(follows, part)}))
        yield from inner or [part]


def _entry(follows: Graph, part: set[int]) -> int:
    entered = [to for node, after in follows.items() if node not in part for to in after if to in part]
    return min(entered, default=min(part))


def _connected(follows: Graph, nodes: set[int]) -> Iterator[set[int]]:
    """The parts of `nodes` in which every instruction reaches every other."""
    inside = {node: [to for to in follows[node] if to in nodes] for node in nodes}
    before: dict[int, list[int]] = {node: [] for node in nodes}
    for node, after in inside.items():
        for to in after:
            before[to].append(node)
    found: set[int] = set()
    # a cycle jumps backward somewhere
    for start in sorted({to for node, after in inside.items() for to in after if to <= node}):
        if start not in found:
            part = _reached(inside, start) & _reached(before, start)
            if part:
                found |= part
                yield part


def _reached(follows: Graph, start: int) -> set[int]:
    """What can run after `start`; itself only if it is in a cycle."""
    reached: set[int] = set()
    rest = list(follows[start])
    while rest:
        node = rest.pop()
        if node not in reached:
            reached.add(node)
            rest += follows[node]
    return reached


def parse(text: str) -> Iterator[Function]:
    """The functions in what `objdump -d -C --no-show-raw-insn` prints."""
    name = ""
    instructions: list[Instruction] = []
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line):
            if instructions:
                yield Function(name, tuple(instructions))
            name, instructions = head["name"], []
        elif found := _LINE.match(line):
            instructions.append(Instruction(int(found["address"], 16), found["name"], found["operands"]))
    if instructions:
        yield Function(name, tuple(instructions))


def functions(object_file: Path) -> list[Function]:
    """Of a compiled file, by objdump of the binutils."""
    objdump = shutil.which("objdump")
    assert objdump is not None, "objdump is missing; GCC's package needs binutils: apt-get install binutils"
    command = [objdump, "-d", "-C", "--no-show-raw-insn", str(object_file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return list(parse(done.stdout))
