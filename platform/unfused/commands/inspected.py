"""What `unfused inspect` shows: lines for people, and the same for scripts.

The rule of this file: it knows what was found, and opens no clip.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unfused import corpora
from unfused.audio.samples import MAX_WINDOWS, Cut
from unfused.corpora.clip import Clip
from unfused.corpora.counts import CLASSES_SHOWN
from unfused.pipeline import Request
from unfused.stages.reading import Read

TASK = "task"
BARS = 8
BAR_WIDTH = 32
PAD = " " * 11


@dataclass(frozen=True)
class Part:
    """A corpus, or a task: what came of its clips.

    Attributes:
        name: `corpus` or `task`.
        found: by a run's own reading.
        total: files that were listed, of which some may not have been opened.
        sample_rate: Hz of the clips.
    """

    name: str
    found: Read
    total: int
    sample_rate: int

    @property
    def seconds(self) -> np.ndarray:
        """Of every clip that can be used."""
        rows = [row.length for some in self.found.rows.values() for row in some]
        return np.array(rows, float) / self.sample_rate

    @property
    def opened(self) -> int:
        """Files."""
        return len({clip.path for clip in self.found.clips})

    @property
    def recorded(self) -> Counter[tuple[int, int]]:
        """Files of each rate (Hz) and number of channels."""
        return Counter(tuple(kind) for one in self.found.told for kind in one.kinds)


@dataclass(frozen=True)
class Listed:
    """The clips of a collection.

    Attributes:
        halves: those of the task, of all folds once, and of the corpus, by these names.
        tasks: those of each fold, with splits; none where a run would refuse them.
        notes: what was understood, left out or merged, a line each.
        labels: how many clips each class has of a task that is refused.
        refused: why.
    """

    halves: Mapping[str, Sequence[Clip]]
    tasks: Sequence[Sequence[Clip]]
    notes: Sequence[str]
    labels: Counter[str] = field(default_factory=Counter)
    refused: str = ""


@dataclass(frozen=True)
class Found:
    """What is shown."""

    request: Request
    listed: Listed
    parts: Sequence[Part]
    typed: Sequence[str] = ()
    """The preset and the settings, as somebody typed them."""

    def lines(self) -> Iterator[str]:
        """For people."""
        for note in self.listed.notes:
            yield f"note       {note}"
        if self.listed.tasks:
            yield from corpora.count_lines(self.listed.tasks)
            yield from self._label_lines()
        elif labels := self.listed.labels:
            yield f"classes    {', '.join(_most(labels))}"
        for part in self.parts:
            yield from _part_lines(part, self.request)
        for warning in self._warnings():
            yield f"warning    {warning}"
        if self.listed.refused:
            yield f"refused    {self.listed.refused}"
        else:
            yield f"next       {self._next()}"

    def _label_lines(self) -> Iterator[str]:
        counts = self._train_counts()
        fewest, most = min(counts.values()), max(counts.values())
        several = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        yield f"labels     {several} training clips a class"

    def _train_counts(self) -> Counter[str]:
        clips = [clip for clip in self.listed.tasks[0] if clip.split == "train"]
        return Counter(clip.label for clip in clips if clip.label is not None)

    def _warnings(self) -> list[str]:
        tasks = self.listed.tasks
        return corpora.warnings(tasks, self.request.config.evaluate.split) if tasks else []

    def _next(self) -> str:
        words = ["unfused", "run"]
        if not self.listed.tasks:
            words += ["--corpus", str(self.request.task), "--task", "LABELLED"]
        else:
            for name in ("corpus", "task"):
                if value := getattr(self.request, name):
                    words += [f"--{name}", value]
        words += [*self.request.columns.words, *(["--folds"] if self.request.folds else [])]
        return shlex.join([*words, *self.typed])

    def plain(self) -> dict[str, Any]:
        """For scripts."""
        found: dict[str, Any] = {"notes": list(self.listed.notes)}
        if self.listed.tasks:
            splits: dict[str, Counter[str]] = {}
            for clip in self.listed.tasks[0]:
                splits.setdefault(str(clip.split), Counter())[str(clip.label)] += 1
            found |= {"classes": {split: dict(count) for split, count in splits.items()}}
            found |= {"folds": len(self.listed.tasks) if self.request.folds else 0}
            found |= {"warnings": self._warnings()}
        elif self.listed.labels:
            found |= {"labels": dict(self.listed.labels)}
        for part in self.parts:
            found[part.name] = _part_record(part, self.request)
        refused = self.listed.refused or None
        return found | {"refused": refused, "next": None if refused else self._next()}


def _part_lines(part: Part, request: Request) -> Iterator[str]:
    seconds, found = part.seconds, part.found
    some = f" (of {part.total} listed)" if part.opened < part.total else ""
    yield (
        f"{part.name:10} {part.opened} files opened{some}, {len(seconds)} clips that can be used,"
        f" {_duration(float(seconds.sum()))} of sound"
    )
    if len(seconds):
        low, middle, high = np.quantile(seconds, (0.05, 0.5, 0.95))
        yield (
            f"durations  {seconds.min():.2f} to {seconds.max():.2f} s; nine in ten"
            f" {low:.2f} to {high:.2f}, the middle one {middle:.2f}"
        )
        yield from (f"{PAD}{line}" for line in histogram(seconds))
        kinds = [f"{_kind(*kind)} {count}" for kind, count in part.recorded.most_common(6)]
        more = len(part.recorded) - len(kinds)
        yield f"recorded   {', '.join(kinds)}{f', {more} more kinds' if more else ''}"
        yield f"window     {_window(seconds, request)}"
    for note in found.notes():
        yield f"note       {note}"
    if found.bad:
        reasons = [f"{why} {count}" for why, count in found.reasons.most_common()]
        yield f"quarantine {len(found.bad)}: {', '.join(reasons)}"
    for warning in found.warnings():
        yield f"warning    {warning}"


def _part_record(part: Part, request: Request) -> dict[str, Any]:
    seconds, found = part.seconds, part.found
    quantiles = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    return {
        "files": part.total,
        "opened": part.opened,
        "clips": len(seconds),
        "seconds": float(seconds.sum()),
        "durations": dict(
            zip(map(str, quantiles), np.quantile(seconds, quantiles).tolist(), strict=True)
        )
        if len(seconds)
        else {},
        "recorded": [
            {"rate": rate, "channels": channels, "files": count}
            for (rate, channels), count in part.recorded.most_common()
        ],
        "repeats": found.repeats,
        "silent": found.silent,
        "cut_short": found.cut_short,
        "quarantine": dict(found.reasons),
        "bad": [{"path": found.clips[i].path, "reason": why} for i, why in found.bad.items()],
        "notes": found.notes(),
        "warnings": found.warnings(),
        "window_seconds": request.config.audio.settled().crop_seconds,
    }


def histogram(seconds: np.ndarray) -> list[str]:
    """How many clips are how long, in bars of even widths; the last of all that are longer.

    Args:
        seconds: (N,), N >= 1.
    """
    step = _round_step(float(np.quantile(seconds, 0.98)) / BARS)
    place = np.minimum((seconds / step).astype(int), BARS - 1)
    counts = np.bincount(place, minlength=BARS)
    digits = 0 if step >= 1 else 2 if step < 0.1 else 1
    filled = counts.nonzero()[0]
    lines = []
    for number in range(int(filled.min()), int(filled.max()) + 1):
        count = int(counts[number])
        begin, end = f"{number * step:.{digits}f}", f"{(number + 1) * step:.{digits}f}"
        name = f"{begin}+ s" if number == BARS - 1 else f"{begin}-{end} s"
        bar = "█" * max(bool(count), round(BAR_WIDTH * count / counts.max()))
        lines.append(f"{name:>12} {bar} {count}".rstrip())
    return lines


def _round_step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(max(least, 0.01)))
    return next(one * power for one in (1, 2, 5, 10) if one * power >= least - 1e-9)


def _most(labels: Counter[str]) -> list[str]:
    """The classes with the most clips, and how many others there are."""
    shown = [f"{label} {count}" for label, count in labels.most_common(CLASSES_SHOWN)]
    more = len(labels) - len(shown)
    return [*shown, *([f"{more} more"] if more else [])]


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _kind(rate: int, channels: int) -> str:
    name = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    return f"{rate / 1000:g} kHz {name}"


def _window(seconds: np.ndarray, request: Request) -> str:
    """What the window means for clips of these durations."""
    audio = request.config.audio
    cut = Cut(audio.crop_samples)
    window = audio.crop_samples / audio.sample_rate
    auto = " (auto)" if audio.crop_seconds == "auto" else ""
    middle = cut.count(float(np.median(seconds)) * audio.sample_rate)
    padded = float(np.mean(seconds < window))
    parts = [
        f"{window:g} s{auto}: {middle} {'covers' if middle == 1 else 'cover'} the middle clip"
    ]
    if padded >= 0.005:
        parts.append(f"{padded:.0%} of clips are shorter and padded")
    far = float(np.mean(seconds > MAX_WINDOWS * window))
    if far > 0:
        parts.append(
            f"{far:.1%} are longer than the {MAX_WINDOWS} windows that are looked at: label"
            " stretches (start, end), or set ingest.segment_seconds"
        )
    return "; ".join(parts)

