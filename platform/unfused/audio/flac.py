"""Frames of FLAC as far as they tell how long a file is (RFC 9639, section 9.1).

The rule of this file: bytes are looked at, nothing is decoded.
"""

from __future__ import annotations

import struct

LARGEST_FRAME = 2**17
"""Bytes at a file's end in which its last frame begins, where the stream does not state more."""
LONGEST_HEADER = 16
POLYNOMIAL = 0x07
SHORT, LONG = 6, 7
"""Codes of a block size that stands behind the number, in one byte or in two."""
RATE_BYTES = {12: 1, 13: 2, 14: 2}
"""Codes of a rate that stands there, and how many bytes it has."""


def num_samples(tail: bytes, block_size: int) -> int:
    """Samples up to the end of the last frame that begins in the end of a file; 0 where none does.

    Args:
        tail: of the file.
        block_size: of all frames but the last, where their headers count frames.
    """
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if end := _end_of_frame(tail[at : at + LONGEST_HEADER], block_size):
            return end
    return 0


def _end_of_frame(head: bytes, block_size: int) -> int:
    """Samples up to the end of the frame that has this header; 0 where it is none."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1 or not head[2] >> 4:
        return 0
    size = 8 - (head[4] ^ 0xFF).bit_length()
    if size == 1 or size > 7:
        return 0
    size = max(1, size)
    code, rate = head[2] >> 4, head[2] & 0x0F
    at = 4 + size
    own = {SHORT: 1, LONG: 2}.get(code, 0)
    end = at + own + RATE_BYTES.get(rate, 0)
    if end >= len(head) or _crc(head[:end]) != head[end]:
        return 0
    number = head[4] & (0x7F >> size if size > 1 else 0x7F)
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    length = _block_size(code, head[at : at + own])
    return (number if head[1] & 1 else number * block_size) + length


def _block_size(code: int, own: bytes) -> int:
    if own:
        return int.from_bytes(own, "big") + 1
    return 192 if code == 1 else 576 << (code - 2) if code < SHORT else 256 << (code - 8)


def _crc(data: bytes) -> int:
    found = 0
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = (found << 1 ^ POLYNOMIAL) & 0xFF if found & 0x80 else found << 1
    return found


def stated(head: bytes) -> tuple[int, int]:
    """Samples and the block size that a stream states in STREAMINFO, its first block.

    Args:
        head: the file's first 26 bytes or more.
    """
    (block_size,) = struct.unpack_from(">H", head, 10)
    (low,) = struct.unpack_from(">I", head, 22)
    return (head[21] & 0x0F) << 32 | low, block_size
