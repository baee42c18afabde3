# SPDX-License-Identifier: Apache-2.0
"""Mutations of files: of any bytes, and of the parts that a format has (headers, zip directories, texts).

Every function takes a NumPy random generator and the bytes of a file, and returns other bytes.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "DAMAGE",
    "Mutator",
    "bytes_any",
    "json_tokens",
    "npy_header",
    "splice",
    "tensor_header",
    "zip_records",
]

Random = np.random.Generator
Mutator = Callable[[Random, bytes], bytes]

# Where arithmetic turns over, and what no file of ours can mean.
NUMBERS = (
    *(0, 1, 2, 3, 7, 16, 63, 64, 255, 256, 1000, 65535, 65536, 2**24, 10**9, 10**12, 10**18),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -(2**31), -(2**63)),
)


def _number(rng: Random) -> int:
    return NUMBERS[rng.integers(len(NUMBERS))]


def flip(rng: Random, data: bytes) -> bytes:
    """One to four flipped bits."""
    made = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if made:
            made[rng.integers(len(made))] ^= 1 << int(rng.integers(8))
    return bytes(made)


def one_byte(rng: Random, data: bytes) -> bytes:
    """One byte replaced."""
    made = bytearray(data)
    if made:
        made[rng.integers(len(made))] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
    return bytes(made)


def truncate(rng: Random, data: bytes) -> bytes:
    """Cut off anywhere, or near one of the ends."""
    length = len(data)
    near = [0, 1, 4, 8, 10, 22, 64, length - 1, length - 2, length - 8, length - 22, length // 2]
    return data[: max(int(rng.choice([*near, int(rng.integers(length + 1))])), 0)]


DAMAGE: tuple[Mutator, ...] = (flip, one_byte, truncate)
"""What disks and networks do. A container with a checksum must notice each of them."""


def fill(rng: Random, data: bytes) -> bytes:
    """A range overwritten by one byte or by noise."""
    start, count = _range(rng, data)
    noise = rng.bytes(count) if rng.random() < 0.5 else bytes([int(rng.integers(256))]) * count
    return data[:start] + noise + data[start + count :]


def cut(rng: Random, data: bytes) -> bytes:
    """A range left out."""
    start, count = _range(rng, data)
    return data[:start] + data[start + count :]


def repeat(rng: Random, data: bytes) -> bytes:
    """A range put in once more, at another place."""
    start, count = _range(rng, data)
    at = int(rng.integers(len(data) + 1))
    return data[:at] + data[start : start + count] + data[at:]


def insert(rng: Random, data: bytes) -> bytes:
    """Some bytes put in, at the start, at the end or between."""
    at = int(rng.choice([0, len(data), int(rng.integers(len(data) + 1))]))
    return data[:at] + rng.bytes(int(rng.integers(1, 40))) + data[at:]


def number(rng: Random, data: bytes) -> bytes:
    """A little-endian number of 1 to 8 bytes overwritten."""
    width = int(rng.choice([1, 2, 4, 8]))
    if len(data) < width:
        return data
    at = int(rng.integers(len(data) - width + 1))
    value = _number(rng) % (1 << 8 * width)
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def _range(rng: Random, data: bytes) -> tuple[int, int]:
    start = int(rng.integers(len(data) + 1))
    return start, int(rng.integers(min(len(data) - start, 200) + 1))


_ANY: tuple[Mutator, ...] = (*DAMAGE, fill, cut, repeat, insert, number)


def bytes_any(rng: Random, data: bytes) -> bytes:
    """One to three mutations that know nothing of the format."""
    for _ in range(rng.integers(1, 4)):
        data = _ANY[rng.integers(len(_ANY))](rng, data)
    return data


def splice(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The start of one file and the end of another."""
    other = others[rng.integers(len(others))]
    return data[: int(rng.integers(len(data) + 1))] + other[int(rng.integers(len(other) + 1)) :]


def tensor_header(rng: Random, data: bytes) -> bytes:
    """An int32 of a .tensor header overwritten."""
    at = 4 * int(rng.integers(7))
    return data[:at] + struct.pack("<I", _number(rng) % 2**32) + data[at + 4 :]


_DESCR = (
    "|O",
    "<f4",
    ">f4",
    "<f8",
    "|b1",
    "<U7",
    "|S3",
    "<M8[ns]",
    "<c8",
    "<f16",
    "|V2",
    "<i3",
    "",
    "f4",
    "<f4\\'",
)
_SHAPES = (
    "()",
    "(,)",
    "(3)",
    "(-1,)",
    "(0, 1000000000000000000)",
    "(1000000000000,)",
    "(1,) * 9",
    "(1.5,)",
    "(2L,)",
)


def npy_header(rng: Random, data: bytes) -> bytes:
    """A .npy with another header before its values."""
    descr = f"'{rng.choice(_DESCR)}'" if rng.random() < 0.8 else "[('a', '<f4'), ('b', '<i4', (2,))]"
    shape = (
        str(rng.choice(_SHAPES)) if rng.random() < 0.6 else str(tuple(int(_number(rng)) for _ in range(3)))
    )
    order = rng.choice(["True", "False", "0", "None"])
    items = [f"'descr': {descr}", f"'fortran_order': {order}", f"'shape': {shape}", "'more': 1", "(" * 300]
    keep = [items[i] for i in rng.permutation(5)[: rng.integers(2, 5)]] if rng.random() < 0.3 else items[:3]
    text = "{" + ", ".join(keep) + ", }"
    text += " " * int(rng.choice([0, 3, 20, 70000])) + "\n"
    version = int(rng.choice([1, 1, 2, 3, 0, 9]))
    length = len(text) if rng.random() < 0.8 else _number(rng)
    width = 2 if version == 1 else 4
    return (
        b"\x93NUMPY"
        + bytes([version, int(rng.integers(2))])
        + (length % (1 << 8 * width)).to_bytes(width, "little")
        + text.encode()
        + data[-int(rng.integers(1, len(data) + 1)) :]
    )


_RECORDS = ((b"PK\3\4", 30), (b"PK\1\2", 46), (b"PK\5\6", 22), (b"PK\6\6", 56), (b"PK\6\7", 20))


def zip_records(inner: Mutator) -> Mutator:
    """Mutations of zip archives: fields of their records, or members (by `inner`) in an archive made anew."""

    def mutate(rng: Random, data: bytes) -> bytes:
        if rng.random() < 0.4:
            return _zip_field(rng, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that are there twice
            return _zip_anew(rng, data, inner)

    return mutate


def _zip_field(rng: Random, data: bytes) -> bytes:
    mark, size = _RECORDS[rng.integers(len(_RECORDS))]
    places = [found.start() for found in re.finditer(re.escape(mark), data)]
    if not places:
        return number(rng, data)
    at = int(rng.choice(places)) + int(rng.integers(4, size))
    width = int(rng.choice([1, 2, 4]))
    value = _number(rng) % (1 << 8 * width)
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def _zip_anew(rng: Random, data: bytes, inner: Mutator) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = [(name, source.read(name)) for name in source.namelist()]
    chosen = int(rng.integers(len(members)))
    name, content = members[chosen]
    what = int(rng.integers(8))
    if what < 4:
        members[chosen] = (name, inner(rng, content))
    elif what == 4:
        members.append((name, content if rng.random() < 0.5 else rng.bytes(20)))
    elif what == 5:
        members[chosen] = (
            str(rng.choice(["../x.npy", ".", "a\x00b", "é" * 40, name[:-4] or "x", name.upper()])),
            content,
        )
    elif what == 6:
        del members[chosen]
    else:
        members[chosen] = (name, content + bytes(2_000_000))
    method = int(
        rng.choice(
            [zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED] * 3 + [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
        )
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        for entry, value in members:
            target.writestr(entry, value)
    return out.getvalue()


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[{}\[\],:]')
_TEXTS = (
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"-0",
        b"1e-400",
        b"1" * 5000,
        b"0x" + b"f" * 5000,
        b"null",
        b"true",
    ),
    *(
        b'"\\ud800"',
        b'"\xff\xfe"',
        b"[]",
        b"{}",
        b"[" * 3000,
        b"{" * 3000,
        b'{"a":' * 400,
        b'"',
        b"\x00",
        b"\xef\xbb\xbf",
    ),
    *(b"0", b"-1", b"1.5", b"2147483648", b"1e308", b"1e-308", b"18446744073709551616", b'"fp32"', b'"int8"'),
    *(
        b"&a [*a]",
        b"*b",
        b"!!python/object:os.system x",
        b"!!binary aGk=",
        b"2001-99-99",
        b"1:99:99",
        b"? [1]",
        b"<<: *a",
    ),
)


def json_tokens(rng: Random, data: bytes) -> bytes:
    """Tokens of a JSON or YAML text replaced, left out, repeated or exchanged; texts in other encodings."""
    tokens = list(_TOKEN.finditer(data))
    if not tokens or rng.random() < 0.05:
        return _encoded(rng, data)
    found = tokens[rng.integers(len(tokens))]
    other = tokens[rng.integers(len(tokens))]
    start, end = found.span()
    what = int(rng.integers(6))
    if what < 3:
        return data[:start] + _TEXTS[rng.integers(len(_TEXTS))] + data[end:]
    if what == 3:
        return data[:start] + data[end:]
    if what == 4:  # a part of the text once more: keys twice, longer lists, deeper levels
        last = tokens[min(tokens.index(found) + int(rng.integers(1, 8)), len(tokens) - 1)].end()
        return data[:last] + b"," * int(rng.integers(2)) + data[start:last] + data[last:]
    return data[:start] + other[0] + data[end:]


def _encoded(rng: Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    encoding = str(rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "cp037"]))
    return text.encode(encoding, "replace")
