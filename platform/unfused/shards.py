"""Writes and streams Parquet shards of clips with Ray Data.

The rule of this room: memory stays bounded. A shard is written a row group at a time, and what
streams is blocks of fixed windows, never a data set.

Axes: B clips, C windows of one clip, S samples of one window.

A part (a corpus, or one split of a task) is a folder of `part-00000.parquet`, ... with the columns
`digest` (of the clip's bytes) and `samples` (mono, the bytes of little-endian int16, which Parquet
copies; it decodes lists number by number). A clip's index is its row in that order.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unfused import runtime
from unfused.audio.samples import crop_or_pad
from unfused.store import Artifact, Folder

SCHEMA = pa.schema([("digest", pa.string()), ("samples", pa.large_binary())])
SAMPLE = np.dtype("<i2")
ROW_GROUP_CLIPS = 64
ROW_GROUP_BYTES = 32 * 2**20
BLOCK_BYTES = 16 * 2**20
WINDOW_BYTES = 128 * 2**20
MIX_ROWS = 256
MAX_BLOCKS = 1024
FEW = 2
"""Blocks that are not worth an execution of Ray Data."""
KEPT_BYTES = int(os.environ.get("UNFUSED_KEPT_MIB", "512")) * 2**20
"""A worker's share of the clips that it keeps at hand: four and a half hours at 16 kHz."""


class ShardWriter:
    """Writes clips to one shard with bounded memory."""

    def __init__(self, folder: Folder, name: str) -> None:
        folder.filesystem.create_dir(folder.path, recursive=True)
        self._sink = folder.filesystem.open_output_stream(f"{folder.path}/{name}")
        self._writer = pq.ParquetWriter(
            self._sink,
            SCHEMA,
            compression="NONE",
            use_dictionary=False,
            write_statistics=["digest"],
        )
        self._rows: list[tuple[str, np.ndarray]] = []
        self._bytes = 0

    def add(self, digest: str, samples: np.ndarray) -> None:
        if len(self._rows) == ROW_GROUP_CLIPS or self._bytes + samples.nbytes > ROW_GROUP_BYTES:
            self._flush()
        self._rows.append((digest, samples))
        self._bytes += samples.nbytes

    def _flush(self) -> None:
        if not self._rows:
            return
        digests, clips = zip(*self._rows, strict=True)
        offsets = np.cumsum([0, *(SAMPLE.itemsize * len(clip) for clip in clips)])
        data = np.concatenate(clips).astype(SAMPLE, copy=False)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        samples = pa.Array.from_buffers(pa.large_binary(), len(clips), buffers)
        self._writer.write_table(pa.table([pa.array(digests), samples], schema=SCHEMA))
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._sink.close()


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


def num_clips(part: Artifact) -> int:
    return sum(part.facts["shards"])


def digests(part: Artifact) -> set[str]:
    """SHA-256 of the bytes of every clip of a part."""
    found: set[str] = set()
    for number in range(len(part.facts["shards"])):
        name = f"{part.folder.path}/part-{number:05d}.parquet"
        with part.folder.filesystem.open_input_file(name) as source:
            found |= set(pq.ParquetFile(source).read(columns=["digest"])["digest"].to_pylist())
    return found


def may_be_kept(part: Artifact, rows: range) -> bool:
    """Whether the clips `rows` of a part, were they all of mean length, fit in `KEPT_BYTES`."""
    total = 2 * part.facts["seconds"] * part.facts["audio"]["sample_rate"]
    return total * len(rows) <= KEPT_BYTES * num_clips(part)


def rank_rows(total: int, rank: int, world: int) -> range:
    """The contiguous clips that one worker trains on; shares differ by one at most."""
    return range(total * rank // world, total * (rank + 1) // world)


def slices(part: Artifact, rows: range, clips_per_slice: int) -> list[Slice]:
    """Cover the clips `rows` of a part with slices of at most `clips_per_slice`."""
    found: list[Slice] = []
    first = 0
    for number, count in enumerate(part.facts["shards"]):
        low, high = max(rows.start, first), min(rows.stop, first + count)
        for begin in range(low, high, clips_per_slice):
            end = min(begin + clips_per_slice, high)
            name = f"part-{number:05d}.parquet"
            found.append(Slice(part.folder, name, begin - first, end - first, begin))
        first += count
    return found


def read_clips(piece: Slice) -> Iterator[tuple[int, np.ndarray]]:
    """Index and samples of every clip of a slice, two row groups in memory at most."""
    source = piece.folder.filesystem.open_input_file(f"{piece.folder.path}/{piece.file}")
    with source, pq.ParquetFile(source) as file:
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


Read = Callable[[Slice], Iterator[tuple[int, np.ndarray]]]
"""Index and samples of every clip of a slice."""


def random_windows(
    piece: Slice, num_samples: int, seed: int, read: Read = read_clips
) -> dict[str, np.ndarray]:
    """One random window of every clip, in random order: the same for the same (seed, epoch).

    Args:
        piece: the clips.
        num_samples: S.
        seed: of the order and the windows.
        read: where the clips come from; the shard, or a `ClipCache` of it.

    Returns:
        `samples` (B, S) int16 and `clip` (B,) int64.
    """
    rng = _epoch_rng(seed, piece.epoch, piece.first)
    offsets = rng.random(piece.rows)
    samples = np.zeros((piece.rows, num_samples), np.int16)
    clip = np.zeros(piece.rows, np.int64)
    for row, (index, wave) in enumerate(read(piece)):
        samples[row] = crop_or_pad(wave, num_samples, offsets[row])
        clip[row] = index
    order = rng.permutation(piece.rows)
    return {"samples": samples[order], "clip": clip[order]}


def _epoch_rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Random numbers of one epoch; the pass before the first one is epoch -1."""
    return np.random.default_rng((seed, epoch + 1, stream))


def even_windows(piece: Slice, num_samples: int, num_crops: int) -> dict[str, np.ndarray]:
    """`num_crops` evenly spaced windows of every clip: what is embedded and scored.

    Returns:
        `samples` (B, C, S) int16 and `clip` (B,) int64. A single window is the middle one.
    """
    at = window_offsets(num_crops)
    samples = np.zeros((piece.rows, num_crops, num_samples), np.int16)
    clip = np.zeros(piece.rows, np.int64)
    for row, (index, wave) in enumerate(read_clips(piece)):
        clip[row] = index
        samples[row] = _cut(wave, num_samples, at)
    return {"samples": samples, "clip": clip}


def windows_of(
    part: Artifact, indices: np.ndarray, num_samples: int, num_crops: int = 1
) -> np.ndarray:
    """Evenly spaced windows (n, C, S) int16 of a few clips of a part, read here and now.

    Args:
        part: where the clips are; it is read in pieces, of which those without one of them are not.
        indices: (n,) of the clips, ascending.
        num_samples: S.
        num_crops: C.
    """
    wanted = {int(index): row for row, index in enumerate(indices)}
    at = window_offsets(num_crops)
    samples = np.zeros((len(indices), num_crops, num_samples), np.int16)
    between = range(int(indices[0]), int(indices[-1]) + 1)
    for piece in slices(part, between, ROW_GROUP_CLIPS):
        if not wanted.keys() & range(piece.first, piece.first + piece.rows):
            continue
        for index, wave in read_clips(piece):
            if index in wanted:
                samples[wanted[index]] = _cut(wave, num_samples, at)
    return samples


def _cut(wave: np.ndarray, num_samples: int, at: np.ndarray) -> np.ndarray:
    """The windows (C, S) of a waveform that begin at the shares `at` (C,) of the room there is."""
    return np.stack([crop_or_pad(wave, num_samples, share) for share in at])


def selected_clips(piece: Slice, wanted: np.ndarray) -> dict[str, list]:
    """Index and waveform (little-endian int16 bytes) of the clips that `wanted` (N,) marks."""
    found = [(i, wave.tobytes()) for i, wave in read_clips(piece) if wanted[i]]
    return {"clip": [i for i, _ in found], "samples": [data for _, data in found]}


def window_offsets(num_crops: int) -> np.ndarray:
    """Where evenly spaced windows begin, as shares of the room there is; one is in the middle."""
    if num_crops == 1:
        return np.array([0.5])
    return np.minimum(np.arange(num_crops) / (num_crops - 1), np.nextafter(1.0, 0.0))


def read_with_ray(pieces: Sequence[Slice], read: Callable[[Slice], Mapping[str, np.ndarray]]):
    """A lazy Ray Data set with one block for every slice, in order."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Clustering or validation between two batches must not count as a stalled pipeline.
    context.execution_no_progress_timeout_s = -1
    rows = [{"slice": json.dumps(asdict(piece))} for piece in pieces]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    return dataset.map_batches(_Reader(read), batch_size=None)


@dataclass(frozen=True)
class _Reader:
    read: Callable[[Slice], Mapping[str, np.ndarray]]

    def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        (text,) = batch["slice"]
        fields = json.loads(text)
        return self.read(Slice(**{**fields, "folder": Folder(**fields["folder"])}))


def even_blocks(
    part: Artifact, rows: range, num_samples: int, num_crops: int, clips_per_block: int
) -> Iterator[dict[str, np.ndarray]]:
    """`even_windows` of the clips `rows` of a part in order, read ahead by Ray Data.

    A few blocks are read here and now: an execution of Ray Data takes a second to start.
    """
    pieces = slices(part, rows, clips_per_block)
    read = partial(even_windows, num_samples=num_samples, num_crops=num_crops)
    if len(pieces) <= FEW:
        yield from map(read, pieces)
    else:
        yield from _numpy_blocks(read_with_ray(pieces, read))


def _numpy_blocks(dataset: Any) -> Iterator[dict[str, np.ndarray]]:
    blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2))
    # Its threads start with the first block, and live beside a thread that trains.
    with runtime.in_background():
        first = next(blocks, None)
    if first is not None:
        yield first
    # Blocks of Ray Data stay in the object store as long as something has them.
    del first
    yield from blocks


class ClipCache:
    """Whole waveforms of some clips, streamed once to a temporary file and mapped from there.

    Args:
        part: where the clips are.
        indices: which ones, sorted.
    """

    def __init__(self, part: Artifact, indices: np.ndarray) -> None:
        wanted = np.zeros(num_clips(part), bool)
        wanted[indices] = True
        pieces = slices(part, range(len(wanted)), ROW_GROUP_CLIPS * 4)
        pieces = [p for p in pieces if wanted[p.first : p.first + p.rows].any()]
        self._places: dict[int, tuple[int, int]] = {}
        self._file = tempfile.TemporaryFile(prefix="unfused-")  # noqa: SIM115
        for row in read_with_ray(pieces, partial(selected_clips, wanted=wanted)).iter_rows():
            begin = self._file.tell() // 2
            self._file.write(row["samples"])
            self._places[int(row["clip"])] = (begin, self._file.tell() // 2)
        self._file.flush()
        self._samples = np.memmap(self._file, SAMPLE, "r")

    def __getitem__(self, index: int) -> np.ndarray:
        begin, end = self._places[int(index)]
        return self._samples[begin:end]

    def read(self, piece: Slice) -> Iterator[tuple[int, np.ndarray]]:
        """As `read_clips`."""
        return ((i, self[i]) for i in range(piece.first, piece.first + piece.rows))

    def even_windows(self, indices: np.ndarray, num_samples: int, num_crops: int) -> np.ndarray:
        """As `even_windows`: (n, C, S) int16."""
        at = window_offsets(num_crops)
        return np.stack([_cut(self[i], num_samples, at) for i in indices])

    def random_windows(
        self, indices: np.ndarray, num_samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        """One random window of every clip: (n, S) int16."""
        at = rng.random(len(indices))
        return np.stack(
            [crop_or_pad(self[i], num_samples, x) for i, x in zip(indices, at, strict=True)]
        )


Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class ClipStream:
    """The training batches of one worker: random windows of its clips, epoch after epoch.

    Every clip comes once an epoch. The order derives from (seed, epoch) alone, so that a resumed
    run sees what an undisturbed one would. Several epochs run as one Ray Data execution, so that an
    epoch's first batch is ready when the last one ends. Clips that are few enough to be kept
    (`KEPT_BYTES`) are streamed once and then read from the worker's own `cache`, which leaves the
    cores of a small machine to the training; the batches are the same.
    """

    part: Artifact
    rows: range
    num_samples: int
    num_steps: int
    """Steps in an epoch, the same on all workers; batches differ by one clip at most."""
    seed: int
    cache: ClipCache | None = None

    def epochs(self, start: int, stop: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Every epoch of [start, stop) with its batches (`samples` (B, S) int16, `clip` (B,))."""
        blocks = self._blocks(start, stop)
        for epoch in range(start, stop):
            yield epoch, self._batches(blocks, epoch)

    def _blocks(self, start: int, stop: int) -> Iterator[Batch]:
        """The blocks of all epochs in order: from the cache, or read ahead by Ray Data."""
        cover = slices(self.part, self.rows, self._clips_per_slice)
        read = partial(random_windows, num_samples=self.num_samples, seed=self.seed)
        if self.cache is not None:
            for epoch in range(start, stop):
                for piece in self._shuffled(cover, epoch):
                    yield read(piece, read=self.cache.read)
            return
        together = max(1, MAX_BLOCKS // len(cover))
        for first in range(start, stop, together):
            pieces = [
                piece
                for epoch in range(first, min(first + together, stop))
                for piece in self._shuffled(cover, epoch)
            ]
            yield from _numpy_blocks(read_with_ray(pieces, read))

    @property
    def _clips_per_slice(self) -> int:
        return max(1, BLOCK_BYTES // (2 * self.num_samples))

    def _shuffled(self, cover: list[Slice], epoch: int) -> list[Slice]:
        order = _epoch_rng(self.seed, epoch, 0).permutation(len(cover))
        return [replace(cover[i], epoch=epoch) for i in order]

    def _batches(self, blocks: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        rows = self._shuffled_rows(blocks, _epoch_rng(self.seed, epoch, 1))
        held: list[Batch] = []
        for step in range(self.num_steps):
            size = self._bound(step + 1) - self._bound(step)
            while sum(len(h["clip"]) for h in held) < size:
                held.append(next(rows))
            whole = _concatenate(held)
            yield {name: column[:size] for name, column in whole.items()}
            held = [{name: column[size:] for name, column in whole.items()}]

    def _bound(self, step: int) -> int:
        return len(self.rows) * step // self.num_steps

    def _shuffled_rows(self, blocks: Iterator[Batch], rng: np.random.Generator) -> Iterator[Batch]:
        """Mix the rows of neighbouring blocks in windows of bounded size."""
        limit = max(1, WINDOW_BYTES // (2 * self.num_samples))
        left = len(self.rows)
        while left:
            window: list[Batch] = []
            while left and (not window or sum(len(w["clip"]) for w in window) < limit):
                window.append(next(blocks))
                left -= len(window[-1]["clip"])
            whole = _concatenate(window)
            # Blocks of Ray Data stay in the object store as long as something has them.
            del window
            order = rng.permutation(len(whole["clip"]))
            for at in range(0, len(order), MIX_ROWS):
                pick = order[at : at + MIX_ROWS]
                yield {name: column[pick] for name, column in whole.items()}
            del whole


def _concatenate(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
