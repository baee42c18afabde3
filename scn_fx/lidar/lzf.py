# SPDX-License-Identifier: Apache-2.0
"""LZF, the compression of PCD files, unpacked."""

from __future__ import annotations

__all__ = ["unpack_lzf"]

_LITERALS = 32
"""Control bytes below announce literal bytes, the others a copy of what came before."""


def unpack_lzf(data: bytes, size: int) -> bytes:
    """The `size` bytes that `data` stands for, by the format of liblzf.

    A control byte below 32 is followed by that many bytes and one more, taken as they are. Others hold a
    length (three bits; 7: another byte is added to it) and, with the byte that follows, how far back the copy
    begins (13 bits); a copy has two bytes more than its length says and may overlap itself.

    Raises ValueError for data that ends within a step, reaches behind its start, or gives another size.
    """
    made = bytearray()
    at, end = 0, len(data)
    while at < end:
        control = data[at]
        at += 1
        if control < _LITERALS:
            piece = data[at : at + control + 1]
            if len(piece) <= control:
                raise ValueError(f"it ends within {control + 1} literal bytes")
            made += piece
            at += control + 1
        else:
            length = control >> 5
            if at + (length == 7) >= end:
                raise ValueError("it ends within a copy")
            if length == 7:
                length += data[at]
                at += 1
            back = ((control & 31) << 8 | data[at]) + 1
            at += 1
            start, count = len(made) - back, length + 2
            if start < 0:
                raise ValueError(f"a copy begins {back} bytes back, after {len(made)} bytes")
            if back >= count:
                made += made[start : start + count]
            else:
                made += (bytes(made[start:]) * (count // back + 1))[:count]
        if len(made) > size:
            raise ValueError(f"it gives more than the {size} bytes that it should")
    if len(made) != size:
        raise ValueError(f"it gives {len(made)} bytes, not the {size} that it should")
    return bytes(made)
