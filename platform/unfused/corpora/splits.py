"""Decides which clips are learned from, which choose and which are scored.

The rule of this file: a split is a function of the clips' names, labels and groups and a seed, so
it is the same everywhere, and a clip that is added moves few of the others.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from unfused.corpora.clip import Clip, ManifestError
from unfused.corpora.units import Units


def as_corpus(clips: Iterable[Clip]) -> list[Clip]:
    """The clips to pre-train on, each once: of a manifest with splits those of train, without
    labels.

    Raises:
        ManifestError: All clips are in valid or test.
    """
    ours = [clip for clip in clips if clip.split in (None, "train")]
    if not ours:
        raise ManifestError(
            "The corpus has clips in valid and test only; leave out its column `split` or mark"
            " clips as train."
        )
    each: dict[tuple, Clip] = {}
    for clip in ours:
        each.setdefault((clip.path, clip.start, clip.end), clip)
    return [
        replace(clip, label=None, split=None, group=None, fold=None) for clip in each.values()
    ]


def assign(
    clips: Sequence[Clip], valid_fraction: float, test_fraction: float, seed: int
) -> list[Clip]:
    """Give every clip a split, by class, and a whole group the same one.

    Every class of three clips or more has its share in each split, to a clip, and at least one; a
    smaller one is in train; both as far as the groups allow. A clip (or its group) goes where the
    hash of its name and the seed points, and few are moved from there. A manifest's own splits
    stay; where it has no valid, what points there of its train clips becomes it, a share
    `valid_fraction` on average.

    Args:
        clips: A task; all of them or none have a split.
        valid_fraction: Share of the clips, in (0, 1).
        test_fraction: Share of the clips; the sum of both is below 1.
        seed: Another seed, another split.

    Raises:
        ManifestError: Some clips have no split, or a split is left without clips.
    """
    present = Counter(clip.split for clip in clips)
    if set(present) == {None}:
        shares = {"test": test_fraction, "valid": valid_fraction}
        return _whole(_divide(clips, shares, seed, even=True))
    if None in present:
        raise ManifestError(
            f"{present[None]} of {len(clips)} clips have no split; fill in the column `split`."
        )
    for split in ("train", "test"):
        if not present[split]:
            raise ManifestError(
                f"No clip of the task is in {split}; mark some in the column `split`, or leave the"
                " column out."
            )
    if present["valid"]:
        return list(clips)
    train = _divide([c for c in clips if c.split == "train"], {"valid": valid_fraction}, seed)
    carved = iter(train)
    return _whole([next(carved) if clip.split == "train" else clip for clip in clips])


def _whole(clips: list[Clip]) -> list[Clip]:
    """The clips, if no split is empty."""
    for split in sorted({"train", "valid", "test"} - {clip.split for clip in clips}):
        groups = sorted({clip.group for clip in clips if clip.group})
        if len(groups) in (1, 2) and all(clip.group for clip in clips):
            named = " and ".join(map(repr, groups))
            raise ManifestError(
                f"All {len(clips)} clips are of {named}, and what is of one recording or group"
                f" stays in one split: none are left for {split}; add clips of others, or a column"
                " `split`."
            )
        raise ManifestError(
            f"{len(clips)} clips are too few, or in too few groups, to leave some for {split}; add"
            " clips, or a column `split`."
        )
    return clips


def folds(clips: Sequence[Clip]) -> list[str]:
    """The names of the folds in natural order (2 before 10).

    Raises:
        ManifestError: A clip has no fold, or there are fewer than three folds.
    """
    without = sum(clip.fold is None for clip in clips)
    if without == len(clips):
        raise ManifestError(
            "No clip has a fold: give a manifest with a column `fold`, or put the folders of the"
            " classes into folders fold1, fold2, ..."
        )
    if without:
        raise ManifestError(
            f"{without} of {len(clips)} clips have no fold; fill in the column `fold`."
        )
    names = {clip.fold for clip in clips if clip.fold is not None}
    if len(names) < 3:
        raise ManifestError(
            f"Cross-validation needs a fold each to test, validate and train, but the column"
            f" `fold` has {len(names)}; make at least three."
        )
    return sorted(names, key=_natural)


def for_fold(clips: Sequence[Clip], fold: str) -> list[Clip]:
    """Test on `fold`, validate on the next one (cyclically), train on the rest.

    Raises:
        ManifestError: See `folds`; or there is no such fold.
    """
    names = folds(clips)
    if fold not in names:
        raise ManifestError(f"There is no fold {fold!r}; choose one of {', '.join(names)}.")
    special = {names[(names.index(fold) + 1) % len(names)]: "valid", fold: "test"}
    return [replace(clip, split=special.get(str(clip.fold), "train")) for clip in clips]


def split_off_unlabelled(clips: Iterable[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips with a label, and those without."""
    clips = list(clips)
    return [c for c in clips if c.label is not None], [c for c in clips if c.label is None]


def label_map(clips: Iterable[Clip]) -> tuple[str, ...]:
    """The classes of the train clips, sorted: a class's index is its place here."""
    return tuple(sorted({c.label for c in clips if c.split == "train" and c.label is not None}))


def check_task(clips: Sequence[Clip]) -> None:
    """Hold that a classifier can be learned from these clips and scored on them.

    Raises:
        ManifestError: A clip has no label, train has fewer than two classes, or valid or test has
            one that train lacks.
    """
    bare = [clip for clip in clips if clip.label is None]
    if bare:
        raise ManifestError(
            f"{len(bare)} of {len(clips)} clips of the task have no label, the first"
            f" {bare[0].path!r}; label them or move them to the corpus."
        )
    classes = label_map(clips)
    if len(classes) < 2:
        raise ManifestError(
            f"The train clips of the task have {len(classes)} classes ({', '.join(classes)});"
            " a task needs two or more."
        )
    strange = sorted((c.split or "", c.label or "") for c in clips if c.label not in classes)
    if strange:
        split, label = strange[0]
        raise ManifestError(
            f"The class {label!r} of {split} has no clip in train; add some there or remove it."
        )


def _divide(
    clips: Sequence[Clip], shares: Mapping[str, float], seed: int, *, even: bool = False
) -> list[Clip]:
    """Move whole units, a group or a clip of none, from train to the other splits."""
    labels: dict[str, Counter[str | None]] = defaultdict(Counter)
    for clip in clips:
        labels[_unit(clip)][clip.label] += 1
    units = Units(labels, shares, seed)
    if even:
        units.even_out()
    return [replace(clip, split=units.split_of[_unit(clip)]) for clip in clips]


def _unit(clip: Clip) -> str:
    """What stays together; clips of equal names, as of two data sets, go the same way."""
    return f"group {clip.group}" if clip.group else f"clip {clip.name or clip.path}"


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that reads runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]
