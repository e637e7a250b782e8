"""What a model says of one recording, or of a part of it.

The rule of this file: plain data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Segment:
    """A label between two moments.

    Attributes:
        start, end: seconds.
        label: the class.
        probabilities: of every class, the mean over the segment.
    """

    start: float
    end: float
    label: str
    probabilities: Mapping[str, float]

    def __repr__(self) -> str:
        said = f"label={self.label!r}, probability={self.probability:.3f}"
        return f"{type(self).__name__}({said}, start={self.start:g}, end={self.end:g})"

    @property
    def probability(self) -> float:
        """Of the label."""
        return self.probabilities[self.label]

    @property
    def entropy(self) -> float:
        """Of the probabilities, in nats: 0 where one class is certain, log(N) of a mere guess."""
        return -sum(p * math.log(p) for p in self.probabilities.values() if p > 0)


@dataclass(frozen=True, repr=False)
class Prediction(Segment):
    """The label of a whole clip.

    Attributes:
        path: where it lies; empty for samples.
        digest: SHA-256 of the file's bytes; empty for samples.
    """

    path: str = ""
    digest: str = ""
