"""What the stage `trust` leaves, for all that build on it.

    probes-00.safetensors   of a draw: `<teacher>.weight` (C, D) and `<teacher>.bias` (C,)
    labels-00.npy           what its probes together say of the training clips: (1 + K, N, C)
                            float16, the first of all its labelled clips, the others without a fold
    folds-00.npy            the fold (N,) int8 that a labelled clip is left out in; -1 of all others

Axes: N training clips, C classes, D embedding, K folds.
"""

from __future__ import annotations

from unfused.store import Facts

STUDENT = "student"
"""The student of all teachers, which is trusted like them; the name of no other."""


class DrawTrust(Facts):
    """Of one draw of the labels."""

    accuracy: dict[str, float | None]
    """Of each teacher's probe on labelled clips that it was not fitted to; none where a class has a
    single labelled clip, which cannot be left out."""
    weights: dict[str, float]
    """Of each probe in the common judgement."""
    pooled: float | None
    """Accuracy of the common judgement, likewise."""

    @property
    def best(self) -> str:
        """The teacher that is trusted most; the student is none."""
        teachers = [name for name in self.accuracy if name != STUDENT]
        return max(teachers, key=lambda name: self.accuracy[name] or 0.0)

    @property
    def heard(self) -> dict[str, float]:
        """The weights of the probes that are listened to."""
        return {name: weight for name, weight in self.weights.items() if weight}


class TrustFacts(Facts):
    """Of all draws."""

    classes: list[str]
    num_labels: int
    """Training labels that a draw looks at."""
    draws: list[DrawTrust]


def probes_file(repeat: int) -> str:
    return f"probes-{repeat:02d}.safetensors"


def labels_file(repeat: int) -> str:
    return f"labels-{repeat:02d}.npy"


def folds_file(repeat: int) -> str:
    return f"folds-{repeat:02d}.npy"
