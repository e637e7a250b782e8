"""A worker's own copy of some clips, so that many passes read the shards once.

The rule of this file: the clips lie on disk and are mapped, so that they cost no memory that the
system could not take back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np

from unfused.audio.samples import crop_or_pad, even_windows
from unfused.data.blocks import read_with_ray
from unfused.data.part import SAMPLE, num_clips
from unfused.data.windows import Slice, selected_clips, slices
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
        """Evenly spaced windows of every clip: (n, C, S) int16."""
        return np.stack([even_windows(self[i], num_samples, num_crops) for i in indices])

    def random_windows(
        self, indices: np.ndarray, num_samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        """One random window of every clip: (n, S) int16."""
        at = rng.random(len(indices))
        return np.stack(
            [crop_or_pad(self[i], num_samples, x) for i, x in zip(indices, at, strict=True)]
        )
