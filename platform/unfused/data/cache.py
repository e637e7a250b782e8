"""A worker's own copy of some clips, so that many passes read the shards once.

The rule of this file: the clips lie on disk and are mapped, so that they cost no memory that the
system could not take back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np

from unfused.audio.samples import Cut, Windows, crop_or_pad, envelope, random_begin
from unfused.data.blocks import read_with_ray
from unfused.data.part import SAMPLE, num_clips
from unfused.data.windows import Heard, Slice, selected_clips, slices
from unfused.data.writer import ROW_GROUP_CLIPS
from unfused.store import Artifact


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
        self._power: dict[int, np.ndarray] = {}
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

    def read(self, piece: Slice) -> Iterator[Heard]:
        """As `read_heard`."""
        indices = range(piece.first, piece.first + piece.rows)
        return ((i, self[i], partial(self._envelope, i)) for i in indices)

    def _envelope(self, index: int) -> np.ndarray:
        """Of a clip, worked out once."""
        if index not in self._power:
            self._power[index] = envelope(self[index])
        return self._power[index]

    def even_windows(self, indices: np.ndarray, cut: Cut) -> Windows[np.ndarray]:
        """The windows of some clips that are embedded and scored."""
        return Windows.of([cut.windows(self[i]) for i in indices])

    def random_windows(
        self, indices: np.ndarray, num_samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        """One random window of every clip, on sound: (n, S) int16."""
        shares = rng.random(len(indices))
        found = np.empty((len(indices), num_samples), np.int16)
        for row, index in enumerate(indices.tolist()):
            wave, power = self[index], partial(self._envelope, index)
            begin = random_begin(len(wave), num_samples, shares[row], power)
            found[row] = crop_or_pad(wave, num_samples, begin)
        return found
