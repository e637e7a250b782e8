"""How many clips a task has for each purpose and class, and how sure a score over them can be.

The rule of this file: what a person has to know of the clips before anything is trained fits a few
lines, however many classes there are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from unfused.corpora.clip import Clip

SPLITS = ("train", "valid", "test")
FEW = 10
"""Clips of a class below which a score over them is in doubt."""
RARE = 3
"""Clips of a class that can be in every split."""
FEW_SCORED = 5
"""Scored clips of a class, of which each is a fifth of its recall or more."""
UNEVEN = 20
"""The most clips of a class beside the fewest."""
NAMED = 3
NORMAL_95 = 1.959964
"""Quantile of the normal distribution that leaves out five in a hundred, on both sides."""
CLASSES_SHOWN = 10
WIDTH = 76
"""Columns of a line of classes, beside what stands before it."""


def count_lines(tasks: Sequence[Sequence[Clip]]) -> list[str]:
    """The clips of each split and class.

    Args:
        tasks: one, with splits, or the folds of a cross-validation, each with the others' splits.
    """
    clips = tasks[0]
    of_split = Counter(clip.split for clip in clips)
    of_class = {label: Counter[str | None]() for label in sorted({str(c.label) for c in clips})}
    for clip in clips:
        of_class[str(clip.label)][clip.split if len(tasks) == 1 else "test"] += 1
    if len(tasks) > 1:
        head = f"{len(clips)} in {len(tasks)} folds, each tested on once"
    else:
        head = ", ".join(f"{split} {of_split[split]}" for split in SPLITS)
    classes = "1 class" if len(of_class) == 1 else f"{len(of_class)} classes"
    return [f"clips      {head}; {classes}:", *_class_lines(of_class, len(tasks) > 1)]


def _class_lines(of_class: dict[str, Counter[str | None]], folds: bool) -> list[str]:
    """What each class has, those with the fewest clips alone where there are many classes."""
    shown = list(of_class)
    if len(shown) > CLASSES_SHOWN:
        shown = sorted(shown, key=lambda label: of_class[label].total())[: CLASSES_SHOWN - 1]
    parts = [f"{label} {_sizes(of_class[label], folds)}" for label in shown]
    if left := len(of_class) - len(shown):
        largest = max(of_class.values(), key=Counter.total)
        parts.append(f"and {left} more of up to {_sizes(largest, folds)}")
    return [f"           {line}" for line in _wrapped(parts)]


def _wrapped(parts: Sequence[str]) -> list[str]:
    """Lines of parts that are kept whole, with commas between them."""
    lines = [""]
    for part, comma in zip(parts, [*"," * (len(parts) - 1), ""], strict=True):
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{part}{comma}"
    return lines


def _sizes(count: Counter[str | None], folds: bool) -> str:
    """The clips of a class in train, valid and test, or in all folds."""
    return str(count.total()) if folds else "/".join(str(count[split]) for split in SPLITS)


def warnings(tasks: Sequence[Sequence[Clip]], split: str) -> list[str]:
    """What a person should know of a task's clips before anything is trained: rare classes, classes
    with few clips to be scored on, classes of very different sizes, and `doubt`.

    Args:
        tasks: see `count_lines`.
        split: that is scored.
    """
    counts = Counter(str(clip.label) for clip in tasks[0])
    scored = Counter(dict.fromkeys(counts, 0))
    scored.update(str(clip.label) for clips in tasks for clip in clips if clip.split == split)
    rare = {label: count for label, count in counts.items() if count < RARE}
    few = {label: n for label, n in scored.items() if n < FEW_SCORED and label not in rare}
    (most, many), (fewest, least) = counts.most_common()[0], counts.most_common()[-1]
    found = []
    if rare:
        found.append(f"fewer than {RARE} clips, too few for every split: {_named(rare)}.")
    if few:
        found.append(f"fewer than {FEW_SCORED} {split} clips: {_named(few)}.")
    if many > UNEVEN * least:
        found.append(
            f"{most!r} has {many / least:.0f} times the clips of {fewest!r}; look at the balanced"
            " accuracy."
        )
    return [*found, *filter(None, [doubt(tasks, split)])]


def _named(counts: Mapping[str, int]) -> str:
    """The classes with the fewest clips."""
    some = sorted(counts.items(), key=lambda item: (item[1], item[0]))[:NAMED]
    more = f", and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    return ", ".join(f"{label!r} {count}" for label, count in some) + more


def doubt(tasks: Sequence[Sequence[Clip]], split: str) -> str:
    """A warning where a class has few clips to be scored on, and what to do; else nothing.

    Args:
        tasks: see `count_lines`.
        split: that is scored.
    """
    scored = Counter(str(clip.label) for clips in tasks for clip in clips if clip.split == split)
    if not scored or min(scored.values()) >= FEW:
        return ""
    label, fewest = min(sorted(scored.items()), key=lambda item: item[1])
    return (
        f"an accuracy over {scored.total()} {split} clips ({fewest} of {label!r}) is uncertain by"
        f" up to {half_width(scored.total()):.2f} either way (95 %); {_remedy(tasks)}"
    )


def _remedy(tasks: Sequence[Sequence[Clip]]) -> str:
    if len(tasks) > 1:
        return "label more clips."
    if len({clip.fold for clip in tasks[0]} - {None}) < 3:
        return "label more clips, or test on all of them: --folds, with a manifest's column `fold`."
    return f"--folds tests on all {len(tasks[0])} labelled clips."


def half_width(count: int, accuracy: float = 0.5) -> float:
    """Half of Wilson's 95 % interval for an accuracy over so many clips; widest at one half."""
    squared = NORMAL_95**2
    spread = math.sqrt(accuracy * (1 - accuracy) / count + squared / (4 * count**2))
    return NORMAL_95 / (1 + squared / count) * spread
