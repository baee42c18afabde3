# SPDX-License-Identifier: Apache-2.0
"""The bytes of plans, taken apart and put together by the description of the format alone."""

from __future__ import annotations

import struct

__all__ = ["MAGIC", "sealed", "text_at", "xxh64"]

MAGIC = b"\x89SCNP\r\n\x1a"
_HEAD = 20
_PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_MASK = 2**64 - 1


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotated((lane + word * _PRIMES[1]) & _MASK, 31) * _PRIMES[0] & _MASK


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0, after the specification of the xxHash project."""
    one, two, three, four, five = _PRIMES
    at, size = 0, len(data)
    value = five
    if size >= 32:
        lanes = [(one + two) & _MASK, two, 0, -one & _MASK]
        for at in range(0, size - 31, 32):
            words = struct.unpack_from("<4Q", data, at)
            lanes = [_round(lane, word) for lane, word in zip(lanes, words, strict=True)]
        at += 32
        value = sum(_rotated(lane, n) for lane, n in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * one + four) & _MASK
    value = (value + size) & _MASK
    while size - at >= 8:
        (word,) = struct.unpack_from("<Q", data, at)
        value = (_rotated(value ^ _round(0, word), 27) * one + four) & _MASK
        at += 8
    if size - at >= 4:
        (word,) = struct.unpack_from("<I", data, at)
        value = (_rotated(value ^ word * one & _MASK, 23) * two + three) & _MASK
        at += 4
    for byte in data[at:]:
        value = _rotated(value ^ byte * five & _MASK, 11) * one & _MASK
    value = (value ^ value >> 33) * two & _MASK
    value = (value ^ value >> 29) * three & _MASK
    return value ^ value >> 32


def sealed(plan: bytes) -> bytes:
    """`plan`, changed in its middle, with the size and the checksum of what it is now."""
    body = plan[:12] + struct.pack("<Q", len(plan)) + plan[_HEAD:-8]
    return body + struct.pack("<Q", xxh64(body))


def text_at(plan: bytes, number: int) -> tuple[int, bytes]:
    """The text `number` of a plan's description, version, kind and SHA-256, and where it begins."""
    at = _HEAD
    while True:
        (size,) = struct.unpack_from("<I", plan, at)
        if number == 0:
            return at + 4, plan[at + 4 : at + 4 + size]
        at, number = at + 4 + size, number - 1
