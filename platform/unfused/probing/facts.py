"""What the stage `trust` leaves, for all that build on it.

    probes-00.safetensors   of a draw: `<teacher>.weight` (C, D) and `<teacher>.bias` (C,) of a
                            linear probe, `<teacher>/neighbours.said` (M, C) float16 of neighbours
    <teacher>.safetensors   the joined clips of a teacher (`neighbours.Neighbours`), of all draws
    labels-00.npy           what all of them together say of the training clips: (1 + K, N, C)
                            float16, the first of all its labelled clips, the others without a fold
    folds-00.npy            the fold (N,) int8 that a labelled clip is left out in; -1 of all others

Each teacher is heard in two ways, by a linear probe and by neighbours; a way that is weighed is
called a voice, and named after the teacher.

Axes: N training clips, M that are joined, C classes, D embedding, K folds.
"""

from __future__ import annotations

from unfused.store import Facts

STUDENT = "student"
"""The student of all teachers, which is trusted like them; the name of no other."""
NEIGHBOURS = "/neighbours"
"""What the name of a voice ends with that is no linear probe."""


def teacher_of(voice: str) -> str:
    """The teacher whose embeddings a voice judges by."""
    return voice.removesuffix(NEIGHBOURS)


class DrawTrust(Facts):
    """Of one draw of the labels."""

    accuracy: dict[str, float | None]
    """Of each voice on labelled clips that it was not told; none where every class has a single
    labelled clip."""
    weights: dict[str, float]
    """Of each voice in the common judgement."""
    pooled: float | None
    """Accuracy of the common judgement, by weights that were not told the clip either."""

    @property
    def best(self) -> str:
        """The teacher whose linear probe is trusted most; the student is none."""
        probes = [name for name in self.accuracy if name == teacher_of(name) != STUDENT]
        return max(probes, key=lambda name: self.accuracy[name] or 0.0)

    @property
    def heard(self) -> dict[str, float]:
        """The weights of the voices that are listened to."""
        return {name: weight for name, weight in self.weights.items() if weight}

    @property
    def teachers(self) -> dict[str, float]:
        """The weights of the teachers that are listened to, of both their voices together."""
        total: dict[str, float] = {}
        for voice, weight in self.heard.items():
            total[teacher_of(voice)] = total.get(teacher_of(voice), 0.0) + weight
        return total


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


def neighbours_file(teacher: str) -> str:
    return f"{teacher}.safetensors"
