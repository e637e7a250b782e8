"""What a split must not tear apart, a group of clips or one of none, and where each of them goes.

The rule of this file: a unit goes where the hash of its name and a seed points, and is moved from
there only for the sake of a class.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import NamedTuple

Labels = Mapping[str | None, int]
"""Clips of each class that a unit has."""
SMALLEST_GAIN = 1e-9
"""What is closer to the shares by less than this is not: sums are rounded."""


class _Alike(NamedTuple):
    """What units have in common that are as good as each other where one has to move."""

    split: str
    labels: tuple[tuple[str | None, int], ...]


class Units:
    """Where each unit goes: where its hash points, then moved so that no class is missing.

    Args:
        labels: of every unit.
        shares: of the splits beside train.
        seed: another seed, other hashes.
    """

    def __init__(
        self, labels: Mapping[str, Labels], shares: Mapping[str, float], seed: int
    ) -> None:
        self._labels, self._shares = labels, shares
        self._hash = {unit: _uniform(seed, unit) for unit in labels}
        self.split_of = {unit: self._pointed(position) for unit, position in self._hash.items()}
        self._of_class: dict[str | None, list[str]] = defaultdict(list)
        self._count: Counter[tuple[str | None, str]] = Counter()
        """Units of a class in a split."""
        self._clips: Counter[tuple[str | None, str]] = Counter()
        for unit, classes in labels.items():
            for label, clips in classes.items():
                self._of_class[label].append(unit)
                self._count[label, self.split_of[unit]] += 1
                self._clips[label, self.split_of[unit]] += clips
        for label in self._classes:
            for split in self._needed(label):
                self._provide(label, split)

    def even_out(self) -> None:
        """Move units so that every class has its share in each split, to a clip where groups allow.

        Classes of fewer units than splits stay where they are.
        """
        large = [label for label in self._classes if len(self._needed(label)) > 1]
        wanted = {label: self._wanted(label) for label in large}
        # What one class gains another may lose: a move has to bring all together closer.
        while any([self._even_out_class(label, wanted) for label in large]):
            pass

    @property
    def _classes(self) -> list[str | None]:
        return sorted(self._of_class, key=str)

    @property
    def _splits(self) -> tuple[str, ...]:
        return ("train", *self._shares)

    def _pointed(self, position: float) -> str:
        edge = 0.0
        for split, share in self._shares.items():
            edge += share
            if position < edge:
                return split
        return "train"

    def _needed(self, label: str | None) -> tuple[str, ...]:
        """Train first, which has to know every class."""
        splits = self._splits
        return splits if len(self._of_class[label]) >= len(splits) else splits[:1]

    def _provide(self, label: str | None, split: str) -> None:
        """Give a split that lacks the class a unit from where the class has the most to spare."""
        if self._count[label, split]:
            return
        spare = [unit for unit in self._of_class[label] if self._can_leave(unit)]
        if spare:
            self._move(min(spare, key=lambda unit: self._reluctance(label, unit)), split)

    def _can_leave(self, unit: str) -> bool:
        """Whether no class of the unit needs it where it is."""
        here = self.split_of[unit]
        return all(
            self._count[label, here] > 1 or here not in self._needed(label)
            for label in self._labels[unit]
        )

    def _reluctance(self, label: str | None, unit: str) -> tuple[int, float]:
        return -self._count[label, self.split_of[unit]], self._hash[unit]

    def _move(self, unit: str, split: str) -> None:
        for label, clips in self._labels[unit].items():
            for count, moved in ((self._count, 1), (self._clips, clips)):
                count[label, self.split_of[unit]] -= moved
                count[label, split] += moved
        self.split_of[unit] = split

    def _wanted(self, label: str | None) -> dict[str, int]:
        """Clips of a class that each split is to have."""
        total = sum(self._clips[label, split] for split in self._splits)
        shares = {**self._shares, "train": 1 - sum(self._shares.values())}
        return apportioned(total, shares)

    def _even_out_class(
        self, label: str | None, wanted: Mapping[str | None, Mapping[str, int]]
    ) -> bool:
        """Move units of a class for as long as that brings all closer; whether any was moved."""
        alike: dict[_Alike, list[tuple[float, str]]] = defaultdict(list)
        for unit in sorted(self._of_class[label], key=self._hash.__getitem__):
            alike[self._kind(unit)].append((self._hash[unit], unit))
        moved = False
        while best := max(self._moves(label, alike, wanted), default=None):
            _, _, kind, split = best
            _, unit = alike[kind].pop(0)
            self._move(unit, split)
            insort(alike[self._kind(unit)], (self._hash[unit], unit))
            moved = True
        return moved

    def _kind(self, unit: str) -> _Alike:
        labels = sorted(self._labels[unit].items(), key=lambda item: str(item[0]))
        return _Alike(self.split_of[unit], tuple(labels))

    def _moves(
        self,
        label: str | None,
        alike: Mapping[_Alike, list[tuple[float, str]]],
        wanted: Mapping[str | None, Mapping[str, int]],
    ) -> Iterator[tuple[float, float, _Alike, str]]:
        """What may be moved, and where to: by how much closer it brings all, then by its hash."""
        over = {split: self._clips[label, split] - wanted[label][split] for split in self._splits}
        for kind, units in alike.items():
            if not units or over[kind.split] <= 0 or not self._can_leave(units[0][1]):
                continue
            for split in self._splits:
                gain = self._gain(kind, split, wanted) if over[split] < 0 else 0.0
                if gain > SMALLEST_GAIN:
                    yield gain, -units[0][0], kind, split

    def _gain(
        self, kind: _Alike, split: str, wanted: Mapping[str | None, Mapping[str, int]]
    ) -> float:
        """How much closer to their shares such a unit's classes come if it goes to a split."""
        gain = 0.0
        for label, clips in kind.labels:
            if label in wanted:
                over = self._clips[label, kind.split] - wanted[label][kind.split]
                under = wanted[label][split] - self._clips[label, split]
                # Of squares of what is too much or too little, before and after.
                gain += 2 * clips * (over + under - clips) / sum(wanted[label].values())
        return gain


def apportioned(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, as `shares` by largest remainder, none of them zero.

    Args:
        total: at least as many as there are shares, else some are zero.
        shares: sum to 1; where remainders are equal the first of them has it.
    """
    exact = {name: round(total * share, 9) for name, share in shares.items()}
    found = {name: int(value) for name, value in exact.items()}
    left = total - sum(found.values())
    for name in sorted(shares, key=lambda name: found[name] - exact[name])[:left]:
        found[name] += 1
    for name in shares:
        most = max(found, key=lambda other: found[other])
        if not found[name] and found[most] > 1:
            found[name], found[most] = 1, found[most] - 1
    return found


def _uniform(seed: int, unit: str) -> float:
    """A number in [0, 1) from the seed and a name, the same on every machine."""
    value = blake2b(f"{seed} {unit}".encode(), digest_size=8).digest()
    return int.from_bytes(value, "big") / 2**64
