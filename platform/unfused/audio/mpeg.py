"""The frames of an MP3: whether their number is stated, whether their bit rate changes, and whether
more follow than are stated.

The rule of this file: headers alone are looked at, as ISO/IEC 11172-3 and 13818-3 lay them out.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""Of MPEG-1, layer III, by index."""
KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Of MPEG-2 and 2.5."""
RATES = (44100, 48000, 32000)
DIVIDED = {3: 1, 2: 2, 0: 4}
"""What the rates of MPEG-1 (3), 2 and 2.5 (0) are divided by."""
ANOTHER = 4
"""Frames that follow each other behind those that are stated are a stream of their own."""


class _Frame(NamedTuple):
    kbits: int
    length: int
    """Bytes."""


def is_layer_three(head: bytes) -> bool:
    """Whether a file that begins so is an MP3, or has an ID3 tag in front as MP3s do."""
    return head[:3] == b"ID3" or _frame(head) is not None


def states_frames(file: BinaryIO) -> bool:
    """Whether the first frame states how many there are."""
    file.seek(_start(file))
    head = file.read(256)
    return any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))


def is_variable(file: BinaryIO) -> bool:
    """Whether the frames, as far as they follow each other, have several bit rates."""
    at, seen = _start(file), set()
    while len(seen) < 2:
        file.seek(at)
        frame = _frame(file.read(4))
        if frame is None:
            break
        seen.add(frame.kbits)
        at += frame.length
    return len(seen) > 1


def following(file: BinaryIO) -> int | None:
    """Where another MP3 begins, its tag first, behind all that the first frame states."""
    start = _start(file)
    file.seek(start)
    length = _stated_bytes(file.read(256))
    if not length:
        return None
    file.seek(start + length)
    begin = start + length + (128 if file.read(3) == b"TAG" else 0)
    at = _start(file, begin)
    for _ in range(ANOTHER):
        file.seek(at)
        frame = _frame(file.read(4))
        if frame is None:
            return None
        at += frame.length
    return begin


def _stated_bytes(head: bytes) -> int:
    """Bytes of all frames, by the first one, which begins so; 0 where it does not say."""
    if len(head) < 64 or _frame(head) is None:
        return 0
    for name in (b"Xing", b"Info"):
        at = head.find(name, 0, 48)
        if at >= 0:
            counts_frames, counts_bytes = head[at + 7] & 1, head[at + 7] & 2
            (length,) = struct.unpack_from(">I", head, at + 8 + 4 * counts_frames)
            return length if counts_bytes else 0
    at = head.find(b"VBRI", 0, 48)
    return struct.unpack_from(">I", head, at + 10)[0] if at >= 0 else 0


def _start(file: BinaryIO, at: int = 0) -> int:
    """Where the first frame from `at` on is: behind an ID3 tag."""
    file.seek(at)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return at
    a, b, c, d = head[6:10]
    return at + 10 + (a << 21 | b << 14 | c << 7 | d)


def _frame(head: bytes) -> _Frame | None:
    """The frame of layer III that begins so, if one does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return None
    kbits = (KBITS_1 if version == 3 else KBITS_2)[bits]
    coded = (144000 if version == 3 else 72000) * kbits
    return _Frame(kbits, coded // (RATES[rate] // DIVIDED[version]) + (head[2] >> 1 & 1))
