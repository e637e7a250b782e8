"""What a teacher that somebody else trained says of itself, and what it does.

Axes: B clips, S samples of a clip, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import AfterValidator

from unfused.config import NumCrops
from unfused.store import Facts, Folder, check_inside

Level = Literal["float", "int16"]
"""Samples in [-1, 1], or in [-32768, 32767]."""
Pooling = Literal["mean", "max", "mean_max"]
"""What becomes of the frames and windows of a clip."""
Padding = Literal["both", "end"]
"""Where zeros go in a clip that is too short."""
ANY_RATE = 0
"""Sample rate of a teacher that takes the clips as the shards hold them."""


class LogMelFacts(Facts):
    """The log-mel that a teacher takes in place of samples: log(mel power + 1e-6), normalised."""

    n_fft: int = 1024
    """Samples of the Hann window and of the transform."""
    hop_length: int = 160
    """Samples between frames."""
    n_mels: int = 64
    f_min: float = 60.0
    """Hz, lower edge of the first band."""
    f_max: float = 7800.0
    """Hz, upper edge of the last band; at most half the sample rate."""
    mean: float = 0.0
    """Subtracted."""
    std: float = 1.0
    """Divided by, then."""


class TeacherFacts(Facts):
    """As a manifest has them."""

    kind: str
    """A file of `teachers/kinds`."""
    name: str
    """Short, of [a-z0-9_-]: the file's, the hub's or the run's own."""
    source: str
    """The SPEC as it was given."""
    sample_rate: int
    """Hz of the clips that it takes; `ANY_RATE` is what the shards have."""
    window_seconds: float | None = None
    """Longer clips are cut into as few such windows as cover them, evenly spaced; none is any
    length."""
    min_samples: int = 1
    """Shorter clips are padded with zeros to this many samples."""
    padding: Padding = "both"
    """Where the zeros go: evenly on both sides, or at the end."""
    level: Level = "float"
    pooling: Pooling = "mean_max"
    """Over all frames of all windows of a clip."""
    license: str = ""
    """Empty where it states none."""
    file: Annotated[str, AfterValidator(check_inside)] = ""
    """Of its folder, where it is one file."""
    input: str = ""
    """The name of the input that takes the clips."""
    output: str = ""
    """The name of the output that is read."""
    input_axes: str = "BS"
    """What the input's axes are: B clips, S samples, T frames, F bands, 1 of size one."""
    output_axes: str = "BD"
    """What the output's are: B clips, T frames, D embedding, 1; of several T or D all are taken."""
    batch: int | None = None
    """Windows that it takes at once, where it takes one number only."""
    log_mel: LogMelFacts | None = None
    """Where it takes that in place of samples."""
    num_crops: NumCrops = "auto"
    """Windows of a clip, of an encoder of this platform (see `config.EmbedConfig`)."""
    layer: str = "last"
    """Which layer is read: last, a number, or the mean of all."""
    embedding_dim: int | None = None
    """D after pooling, where it is known before the teacher is loaded."""
    assumed: tuple[str, ...] = ()
    """Facts that nothing states, neither the model nor a JSON beside it."""

    @property
    def assumption(self) -> str:
        """What a person should be told of facts that nothing states; empty where all are stated."""
        if not self.assumed:
            return ""
        held = ", ".join(f"{name}={getattr(self, name)}" for name in self.assumed)
        return (
            f"Nothing states {' and '.join(self.assumed)} of the teacher {self.name}: {held} is"
            f" assumed; say it in {self.file}.json."
        )

    def settled(self, rate: int) -> TeacherFacts:
        """The same, where it takes clips as the shards have them with their rate in Hz."""
        if self.sample_rate != ANY_RATE:
            return self
        return self.model_copy(update={"sample_rate": rate})

    @property
    def longest(self) -> int | None:
        """Samples of a window."""
        return round(self.window_seconds * self.sample_rate) if self.window_seconds else None


class Teacher(Protocol):
    """An encoder as far as `embed` knows it."""

    embedding_dim: int
    """D."""

    def embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Whole int16 clips, (S,) each of any length, at `facts.sample_rate`, to (B, D) float32.

        A row that is not finite comes back as it is.
        """


@dataclass(frozen=True)
class Outside:
    """A teacher that was found and understood.

    Attributes:
        folder: its files.
        digest: SHA-256 of the model's bytes and of the facts that its numbers depend on.
        facts: what it says of itself.
    """

    folder: Folder
    digest: str
    facts: TeacherFacts
