"""What lies in an audio file, before it is decoded: sizes that do not hold, links of a chain.

The rule of this file: bytes that are there count, claims of a header do not; what it repairs, it
repairs in a view of the file, and no more of the file is read than its headers.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

from unfused.audio import flac, mpeg
from unfused.audio.badclip import BadClip

SECTOR = 4096
"""Bytes that a header may claim too many: recorders count headers or whole sectors as samples."""

STREAMED_SIZES = range(0x7FFFF000, 0x80000001), range(0xFFFFF000, 2**32)
"""What programs write for a size that they do not know yet (0xFFFFFFFF ffmpeg, 0x80000000 arecord,
0x7FFFF000 SoX), and what is left of it without the headers."""

KNOWN_CHUNKS = (
    *("LIST", "JUNK", "junk", "FLLR", "PAD ", "bext", "iXML", "fact", "cue ", "smpl", "inst"),
    *("plst", "PEAK", "cart", "DISP", "acid", "strc", "afsp", "id3 ", "ID3 ", "_PMX", "axml"),
    *("chna", "umid", "minf", "elm1", "regn", "guan", "wamd", "SAUR", "DGDA"),
)
"""Chunks behind the samples of a WAV, which may be cut themselves."""

ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""Names of a Windows Media file and of the object in its header that states its size."""
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits the other way round."""
NIST_FIELD = re.compile(rb"^(\w+) -\S+ (\S+)", re.MULTILINE)
"""A line of a SPHERE header."""
VOC = b"Creative Voice File\x1a"
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


class View(io.RawIOBase):
    """A stretch of a file, with other bytes in some places of it."""

    def __init__(
        self, file: BinaryIO, start: int, stop: int, patches: Mapping[int, bytes] | None = None
    ) -> None:
        self._file, self._start, self._length = file, start, stop - start
        self._patches, self._at = dict(patches or {}), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def readinto(self, buffer) -> int:
        wanted = max(0, min(len(buffer), self._length - self._at))
        self._file.seek(self._start + self._at)
        data = bytearray(self._file.read(wanted))
        for place, new in self._patches.items():
            first, last = max(place, self._at), min(place + len(new), self._at + len(data))
            if first < last:
                data[first - self._at : last - self._at] = new[first - place : last - place]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True)
class Container:
    """What is known of a file by its headers.

    Attributes:
        links: what is decoded, one after the other; each is an audio file by itself.
        missing: bytes of samples that are promised and not there, in proportion to those there.
        little: they are no more than a sector.
        cut: what is damaged, where nothing says how much is lost.
        guessed: the number of frames is nowhere stated (libsndfile guesses it).
        beyond: libsndfile would not read all of it; FFmpeg does.
    """

    links: tuple[BinaryIO, ...]
    missing: float = 0.0
    little: bool = False
    cut: str = ""
    guessed: bool = False
    beyond: bool = False


def examine(file: BinaryIO, size: int) -> Container:
    """What lies in a file of `size` bytes.

    Raises:
        BadClip: it ends before its samples begin.
    """
    head = _read(file, 0, 40)
    plain = Container((file,))
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wav(file, size, head)
    if head[:4] == b"fLaC":
        return _flac(file, size, head)
    if head[:4] == b"OggS":
        return _ogg(file, size)
    if mpeg.is_layer_three(head):
        return _mp3(file, size)
    claim = _claim(file, size, head)
    if claim is None:
        return plain
    if head[:4] == b".snd" and sum(claim) < size:
        # There is nothing behind the samples of an AU but samples.
        return Container((View(file, 0, size, {8: b"\xff" * 4}),))
    return _held(plain, *claim, size)


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _held(container: Container, start: int, claimed: int, size: int) -> Container:
    """A container of `size` bytes against its claim of samples from `start` on.

    Raises:
        BadClip: none is there.
    """
    there = max(0, size - start)
    if claimed <= there:
        return container
    if not there:
        raise BadClip("truncated", f"0 of {claimed} bytes of samples are there")
    short = claimed - there
    return replace(container, missing=short / there, little=short <= min(SECTOR, there))


def _wav(file: BinaryIO, size: int, head: bytes) -> Container:
    """Walk the chunks (of RIFF, big-endian RIFX, RF64 and BW64) to the samples."""
    order = ">" if head[:4] == b"RIFX" else "<"
    long_at = 0
    for at, name, claimed in _chunks(file, size, 12, f"{order}4sI"):
        if name == b"data":
            if claimed == size - at - 8 and not long_at:
                return Container((file,))
            place = (long_at, "<Q") if long_at else (at + 4, f"{order}I")
            return _sized(file, size, at + 8, *place)
        if name == b"ds64":
            long_at = at + 16
    raise BadClip("truncated", "the file ends before its samples begin")


def _chunks(file: BinaryIO, size: int, at: int, kind: str) -> Iterator[tuple[int, bytes, int]]:
    """Place, name and size of the chunks from `at` on."""
    length = struct.calcsize(kind)
    while at + length <= size:
        file.seek(at)
        name, claimed = struct.unpack(kind, file.read(length))
        yield at, name, claimed
        at += length + claimed + claimed % 2


def _sized(file: BinaryIO, size: int, start: int, at: int, kind: str) -> Container:
    """The WAV with the size of its samples (from `start`, stated at `at`) as they are there."""
    length = struct.calcsize(kind)
    (claimed,), there = struct.unpack(kind, _read(file, at, length)), size - start
    untold = claimed in (0, 2**64 - 1) if length == 8 else not claimed or _is_streamed(claimed)
    holds = claimed <= there and not untold
    if claimed == there or (holds and not _goes_on(file, size, start + claimed, kind[0])):
        return Container((file,))
    if claimed == 0 and length == 4 and _is_chunk(file, size, start, kind[0]):
        return Container((file,))
    if length == 4 and there >= 2**32:
        # To FFmpeg, samples of no size go on to the file's end; behind others it looks for chunks.
        return Container((View(file, 0, size, {at: bytes(4)}),), beyond=True)
    sized = Container((View(file, 0, size, {at: struct.pack(kind, there)}),))
    return sized if untold else _held(sized, start, claimed, size)


def _is_streamed(claimed: int) -> bool:
    return any(claimed in sizes for sizes in STREAMED_SIZES)


def _goes_on(file: BinaryIO, size: int, end: int, order: str) -> bool:
    """Whether samples follow behind their stated end: neither chunks nor the rest of a sector."""
    if size - end < 8:
        return False
    padding = _read(file, end, SECTOR) if size - end <= SECTOR else b"\1"
    return any(padding) and not any(
        _is_chunk(file, size, at, order) for at in (end + end % 2, end)
    )


def _is_chunk(file: BinaryIO, size: int, at: int, order: str) -> bool:
    """Whether a chunk is at `at`: one that is known, or whose size fits; the file's end is one."""
    if at + 8 > size:
        return at == size
    name, claimed = struct.unpack(f"{order}4sI", _read(file, at, 8))
    text = name.decode("latin-1")
    fits = text.isascii() and text.isprintable() and at + 8 + claimed <= size
    return text in KNOWN_CHUNKS or fits


def _flac(file: BinaryIO, size: int, head: bytes) -> Container:
    """STREAMINFO holds 36 bits of frame count at byte 21 and a half (RFC 9639, section 8.2).

    Of 0, "unknown", which libsndfile refuses, the largest count is made; and of one that the last
    frame goes beyond.
    """
    if len(head) < 26:
        return Container((file,))
    claimed, block_size = flac.stated(head)
    tail = _read(file, max(0, size - flac.LARGEST_FRAME), flac.LARGEST_FRAME)
    if claimed and flac.num_samples(tail, block_size) <= claimed:
        return Container((file,))
    patch = {21: bytes([head[21] | 0x0F]) + b"\xff" * 4}
    return Container((View(file, 0, size, patch),), guessed=True)


def _mp3(file: BinaryIO, size: int) -> Container:
    """All MP3s that were joined to one; libsndfile stops where the first one's count ends."""
    links, last, at = list[BinaryIO](), file, 0
    while length := mpeg.following(last):
        links.append(View(file, at, at + length))
        at += length
        last = View(file, at, size)
    counted = mpeg.states_frames(last)
    beyond = not counted and mpeg.is_variable(last)
    return Container((*links, last), guessed=not counted, beyond=beyond)


class _Page(NamedTuple):
    at: int
    end: int
    begins: bool
    ends: bool
    unfinished: bool
    """Its last packet goes on in the next page."""
    stream: int
    number: int
    """Pages of a stream are counted."""


@dataclass
class _Link:
    """A link of a chain, from `start` to the end of its last whole page."""

    start: int
    last: _Page


def _ogg(file: BinaryIO, size: int) -> Container:
    """Walk the pages (RFC 3533): a link begins with the pages that begin its streams.

    Where pages are missing, libsndfile goes on as if nothing were; FFmpeg says when.
    """
    links, cut, at = list[_Link](), "", 0
    numbers, hole = dict[int, int](), False
    while at < size:
        page = _page(file, at)
        if page is None:
            at = _find_page(file, at + 1, size)
            if at < size or not (links and links[-1].last.ends):
                cut = "an Ogg page is damaged"
            continue
        at = page.end
        if at > size:
            break
        hole |= not page.begins and page.number > numbers.get(page.stream, page.number) + 1
        numbers[page.stream] = page.number
        if page.begins and not (links and links[-1].last.begins):
            links.append(_Link(page.at, page))
        elif links:
            links[-1].last = page
    last = links[-1].last if links else None
    if at > size or (last and last.unfinished and not last.ends):
        cut = "the last Ogg page is missing or cut"
    if not last or (len(links) == 1 and not cut and last.ends):
        return Container((file,), cut=cut, beyond=hole)
    return Container(tuple(_ended(file, link) for link in links), cut=cut, beyond=hole)


def _ended(file: BinaryIO, link: _Link) -> View:
    """A link whose last page is marked as the end, without which libsndfile complains of Opus."""
    page = link.last
    if page.ends:
        return View(file, link.start, page.end)
    marked = bytearray(_read(file, page.at, page.end - page.at))
    marked[5] |= 4
    marked[22:26] = bytes(4)
    marked[22:26] = _checksum(marked)
    return View(file, link.start, page.end, {page.at - link.start: bytes(marked[:26])})


def _checksum(page: bytes) -> bytes:
    """Ogg's CRC is zlib's with every bit the other way round, and nothing inverted."""
    mirrored = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return mirrored.to_bytes(4, "big").translate(MIRRORED)


def _page(file: BinaryIO, at: int) -> _Page | None:
    """The page at `at`, or None."""
    head = _read(file, at, 27)
    if head[:4] != b"OggS" or len(head) < 27:
        return None
    lacing = file.read(head[26])
    if len(lacing) < head[26]:
        return None
    end = at + 27 + len(lacing) + sum(lacing)
    stream, number = struct.unpack_from("<II", head, 14)
    begins, ends = bool(head[5] & 2), bool(head[5] & 4)
    return _Page(at, end, begins, ends, lacing[-1:] == b"\xff", stream, number)


def _find_page(file: BinaryIO, at: int, size: int) -> int:
    """Where the next page may begin; `size` if nowhere."""
    while at < size:
        found = _read(file, at, 2**16).find(b"OggS")
        if found >= 0:
            return at + found
        at += 2**16 - 3
    return size


def _claim(file: BinaryIO, size: int, head: bytes) -> tuple[int, int] | None:
    """Where samples begin and how many bytes the header claims, of AIFF, AU, CAF, Wave64, SPHERE,
    VOC, AVI and Windows Media (where headers among them count)."""
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _first(_chunks(file, size, 12, ">4sI"), b"SSND", 8)
    if head[:4] == b".snd" and len(head) >= 12:
        start, claimed = struct.unpack_from(">II", head, 4)
        return None if claimed == 0xFFFFFFFF else (start, claimed)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        (claimed,) = struct.unpack_from("<I", head, 4)
        return None if _is_streamed(claimed) else (8, claimed)
    if head[:4] == b"caff":
        return _first(_caf_chunks(file, size), b"data", 12)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _first(_w64_chunks(file, size), W64_DATA, 24)
    if head[:7] == b"NIST_1A":
        return _nist_claim(_read(file, 0, SECTOR))
    if head[:20] == VOC:
        return _voc_claim(file, size)
    return _asf_claim(_read(file, 0, SECTOR)) if head[:16] == ASF else None


def _asf_claim(head: bytes) -> tuple[int, int] | None:
    """The whole of a Windows Media file, where it states its size: it does not if broadcast."""
    at = head.find(ASF_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return None
    (claimed,) = struct.unpack_from("<Q", head, at + 40)
    (flags,) = struct.unpack_from("<I", head, at + 88)
    return None if flags & 1 else (0, claimed)


def _nist_claim(head: bytes) -> tuple[int, int] | None:
    """The samples behind a SPHERE header, unless it does not count them or they are compressed."""
    fields = dict(NIST_FIELD.findall(head.partition(b"end_head")[0]))
    wanted = (b"sample_count", b"sample_n_bytes", b"channel_count")
    counts = [int(number) if (number := fields.get(name, b"")).isdigit() else 0 for name in wanted]
    compressed = b"," in fields.get(b"sample_coding", b"")
    return None if compressed or not all(counts) else (int(head[8:16]), math.prod(counts))


def _voc_claim(file: BinaryIO, size: int) -> tuple[int, int]:
    """All blocks of a VOC: a byte of kind, three of size, and so many; a kind of 0 ends them."""
    (start,) = struct.unpack("<H", _read(file, 20, 2))
    at = start
    while at + 4 <= size:
        word = int.from_bytes(_read(file, at, 4), "little")
        if word & 255 not in range(1, 10):
            break
        at += 4 + (word >> 8)
    return start, at - start


def _first(
    chunks: Iterator[tuple[int, bytes, int]], wanted: bytes, length: int
) -> tuple[int, int] | None:
    return next(((at + length, size) for at, name, size in chunks if name == wanted), None)


def _caf_chunks(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    at = 8
    while at + 12 <= size:
        name, claimed = struct.unpack(">4sq", _read(file, at, 12))
        yield at, name, claimed
        at += 12 + max(0, claimed)


def _w64_chunks(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    at = 40
    while at + 24 <= size:
        name, claimed = struct.unpack("<16sQ", _read(file, at, 24))
        yield at, name, claimed - 24
        at += max(24, claimed + -claimed % 8)
