"""Clips to windows, and frames of windows back to one row a clip.

The rule of this file: a clip's row depends on that clip alone, never on those beside it.

Axes: B clips, W windows of all clips, S samples of a window, T frames of a window, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unfused.teachers.protocol import Padding, TeacherFacts

LONGEST_SECONDS = 30.0
"""Of a window where the teacher takes any length: what its memory is bounded by."""
SECONDS_AT_ONCE = {"cpu": 32.0, "cuda": 512.0}
"""Of sound in one pass through a teacher, by the kind of device."""

Run = Callable[[list[np.ndarray]], Sequence[np.ndarray]]
"""Int16 windows, (S,) each, to their frames, (T, D) each."""


def cut(wave: np.ndarray, longest: int, shortest: int, padding: Padding) -> list[np.ndarray]:
    """As few windows as cover a clip, evenly spaced; a short clip is padded with zeros.

    Args:
        wave: (S',) int16.
        longest: samples of a window at most.
        shortest: samples of a window at least; at most `longest`.
        padding: evenly on both sides (the odd zero at the end), or all at the end.
    """
    missing = shortest - len(wave)
    if missing > 0:
        left = missing // 2 if padding == "both" else 0
        return [np.pad(wave, (left, missing - left))]
    if len(wave) <= longest:
        return [wave]
    begins = np.linspace(0, len(wave) - longest, -(-len(wave) // longest))
    return [wave[begin : begin + longest] for begin in np.rint(begins).astype(int)]


@dataclass(frozen=True)
class Windowed:
    """A teacher that goes through windows; see `Teacher`.

    Attributes:
        facts: how clips are cut and what is pooled.
        run: the model on a few windows.
        frame_dim: D of a frame.
        device: "cpu" or "cuda".
        mixes_lengths: `run` takes windows of several lengths at once.
        padded_to: samples that `run` makes of a shorter window.
    """

    facts: TeacherFacts
    run: Run
    frame_dim: int
    device: str = "cpu"
    mixes_lengths: bool = False
    padded_to: int = 0

    @property
    def embedding_dim(self) -> int:
        """D of a clip."""
        return self.frame_dim * (2 if self.facts.pooling == "mean_max" else 1)

    def embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Whole int16 clips, (S,) each of any length, to (B, D) float32."""
        facts = self.facts
        longest = facts.longest or max(
            facts.min_samples, round(LONGEST_SECONDS * facts.sample_rate)
        )
        windows = [
            (clip, window)
            for clip, wave in enumerate(waves)
            for window in cut(wave, longest, facts.min_samples, facts.padding)
        ]
        pooled = Pooled(len(waves), self.frame_dim)
        for some in self._batches(windows):
            frames = self.run([window for _, window in some])
            for (clip, _), rows in zip(some, frames, strict=True):
                pooled.add(clip, rows)
        return pooled.rows(facts.pooling)

    def _batches(
        self, windows: list[tuple[int, np.ndarray]]
    ) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Windows in order of length, those of one length (or much the same) together."""
        most = SECONDS_AT_ONCE[self.device] * self.facts.sample_rate
        batch: list[tuple[int, np.ndarray]] = []
        for one in sorted(windows, key=lambda window: len(window[1])):
            size = len(one[1])
            other = bool(batch) and size != len(batch[-1][1]) and not self.mixes_lengths
            if batch and (other or max(size, self.padded_to) * (len(batch) + 1) > most):
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch


class Pooled:
    """Mean and maximum over all frames of every clip, as they come.

    Args:
        num_clips: B.
        width: D of a frame.
    """

    def __init__(self, num_clips: int, width: int) -> None:
        self.sums = np.zeros((num_clips, width))
        self.most = np.full((num_clips, width), -np.inf, np.float32)
        self.counts = np.zeros((num_clips, 1))

    def add(self, clip: int, frames: np.ndarray) -> None:
        """The frames (T, D) of one window of a clip."""
        self.sums[clip] += frames.sum(0, dtype=np.float64)
        self.most[clip] = np.maximum(self.most[clip], frames.max(0))
        self.counts[clip] += len(frames)

    def rows(self, pooling: str) -> np.ndarray:
        """(B, D), or (B, 2 D) for the mean beside the maximum, float32."""
        mean = (self.sums / self.counts).astype(np.float32)
        return {"mean": mean, "max": self.most}.get(pooling, np.hstack([mean, self.most]))
