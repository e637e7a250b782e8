"""Clips and windows of a part, read here and now.

The rule of this file: what is read is a slice, rows of one shard that fit in memory, so that a
slice is also what Ray Data hands out and what a shuffled epoch orders. How a window is cut from a
clip is not decided here but in `audio.samples`.

Axes: B clips, W windows of several, S samples of one window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from unfused.audio.samples import Cut, Windows, crop_or_pad, envelope, random_begin
from unfused.data.part import SAMPLE, shard_file
from unfused.data.writer import ROW_GROUP_CLIPS
from unfused.store import Artifact, Folder, opened_table


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of one shard; `first` is the index of its first clip in the part."""

    folder: Folder
    file: str
    start: int
    stop: int
    first: int
    epoch: int = 0

    @property
    def rows(self) -> int:
        return self.stop - self.start


def slices(part: Artifact, rows: range, clips_per_slice: int) -> list[Slice]:
    """Cover the clips `rows` of a part with slices of at most `clips_per_slice`."""
    found: list[Slice] = []
    # The pages of shards have checksums: what an artifact knows of its files need not travel.
    folder = Folder(part.folder.uri)
    first = 0
    for number, count in enumerate(part.facts.shards):
        low, high = max(rows.start, first), min(rows.stop, first + count)
        for begin in range(low, high, clips_per_slice):
            end = min(begin + clips_per_slice, high)
            name = shard_file(number)
            found.append(Slice(folder, name, begin - first, end - first, begin))
        first += count
    return found


def read_clips(piece: Slice) -> Iterator[tuple[int, np.ndarray]]:
    """Index and samples of every clip of a slice, two row groups in memory at most."""
    with opened_table(piece.folder, piece.file) as file:
        row = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            low, high = max(piece.start, row), min(piece.stop, row + count)
            if low < high:
                column = file.read_row_group(group, columns=["samples"])["samples"].chunk(0)
                _, places, data = column.buffers()
                offsets = np.frombuffer(places, np.int64) // SAMPLE.itemsize
                values = np.frombuffer(data, SAMPLE)
                for i in range(low - row, high - row):
                    index = piece.first + row + i - piece.start
                    yield index, values[offsets[i] : offsets[i + 1]]
            row += count


Heard = tuple[int, np.ndarray, Callable[[], np.ndarray]]
"""Index and samples of a clip, and what gives its envelope."""


def read_heard(piece: Slice) -> Iterator[Heard]:
    """The clips of a slice, from the shard."""
    return ((index, wave, partial(envelope, wave)) for index, wave in read_clips(piece))


def random_block(
    piece: Slice,
    num_samples: int,
    seed: int,
    read: Callable[[Slice], Iterator[Heard]] = read_heard,
) -> dict[str, np.ndarray]:
    """One random window of every clip, in random order: the same for the same (seed, epoch).

    A window falls on sound (`random_begin`).

    Args:
        piece: the clips.
        num_samples: S.
        seed: of the order and the windows.
        read: where the clips come from; the shard, or a `ClipCache` of it.

    Returns:
        `samples` (B, S) int16 and `clip` (B,) int64.
    """
    rng = epoch_rng(seed, piece.epoch, piece.first)
    shares = rng.random(piece.rows)
    samples = np.zeros((piece.rows, num_samples), np.int16)
    clip = np.zeros(piece.rows, np.int64)
    for row, (index, wave, power) in enumerate(read(piece)):
        begin = random_begin(len(wave), num_samples, shares[row], power)
        samples[row] = crop_or_pad(wave, num_samples, begin)
        clip[row] = index
    order = rng.permutation(piece.rows)
    return {"samples": samples[order], "clip": clip[order]}


def epoch_rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Random numbers of one epoch; the pass before the first one is epoch -1."""
    return np.random.default_rng((seed, epoch + 1, stream))


def even_block(piece: Slice, cut: Cut) -> dict[str, np.ndarray]:
    """The windows of every clip that are embedded and scored, one clip's after the other's.

    Returns:
        `samples` (W, S) int16 and `clip` (W,) int64, whose each is.
    """
    clips = [(index, cut.windows(wave)) for index, wave in read_clips(piece)]
    windows = Windows.of([found for _, found in clips])
    index = np.array([index for index, _ in clips], np.int64)
    return {"samples": windows.samples, "clip": np.repeat(index, windows.counts)}


def windows_of(part: Artifact, indices: np.ndarray, cut: Cut) -> Windows[np.ndarray]:
    """The windows of a few clips of a part, read here and now.

    Args:
        part: where the clips are; it is read in pieces, of which those without one of them are not.
        indices: (n,) of the clips, ascending.
        cut: what the windows are.
    """
    wanted = set(indices.tolist())
    between = range(int(indices[0]), int(indices[-1]) + 1)
    return Windows.of(
        [
            cut.windows(wave)
            for piece in slices(part, between, ROW_GROUP_CLIPS)
            if wanted & set(range(piece.first, piece.first + piece.rows))
            for index, wave in read_clips(piece)
            if index in wanted
        ]
    )


def selected_clips(piece: Slice, wanted: np.ndarray) -> dict[str, list]:
    """Index and waveform (little-endian int16 bytes) of the clips that `wanted` (N,) marks."""
    found = [(i, wave.tobytes()) for i, wave in read_clips(piece) if wanted[i]]
    return {"clip": [i for i, _ in found], "samples": [data for _, data in found]}


def whole_clips(
    part: Artifact, rows: range, clips_per_block: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """The clips `rows` of a part in order, a block at a time: indices (B,) and int16 (S,) each."""
    for piece in slices(part, rows, clips_per_block):
        clips = list(read_clips(piece))
        yield np.array([index for index, _ in clips]), [wave for _, wave in clips]
