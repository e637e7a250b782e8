"""The same recording under several names.

The rule of this file: recordings are equal if all their bytes are; what has no sound contradicts
nothing. Sizes are compared first, then a few bytes in the middle; what is still alike is read
whole.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from unfused.corpora import location
from unfused.corpora.clip import Clip
from unfused.corpora.overlap import REMEDY, OverlapError, overlapping

MOST = 0.5
"""Of a stretch that another one has in common with it: so much, and it is the same sound."""
SPOT_BYTES = 4096
THREADS = 16


def without_repeats(
    clips: Sequence[Clip], has_sound: Callable[[str], bool], *, allow_overlap: bool = False
) -> tuple[list[Clip], list[str]]:
    """The clips of a task, each recording once.

    Copies of one label are kept once; copies whose labels differ are left out, all of them: nobody
    knows which is right. Stretches of one recording are no copies of each other.

    Args:
        clips: with the splits and folds that they came with, if any.
        has_sound: of a path; asked where copies differ in label or split.
        allow_overlap: whether copies may be in train and in valid or test.

    Returns:
        The clips that are left, and what is to be said of the others.

    Raises:
        OverlapError: a manifest's own split has a recording in train and in valid or test.
    """
    content = contents(clips)
    clips = _in_one_group(clips, content)
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for i, clip in enumerate(clips):
        alike[content[clip.path], clip.start, clip.end].append(i)
    several = [
        some for some in alike.values()
        if len(some) > 1
        and (len({(clips[i].label, clips[i].split) for i in some}) == 1
             or has_sound(clips[some[0]].path))
    ]  # fmt: skip
    pairs = _torn([clips[i] for i in some] for some in several)
    pairs += _torn_stretches(clips, content, has_sound)
    if pairs and not allow_overlap:
        raise OverlapError(f"{overlapping(pairs)}; {REMEDY}")
    accepted = [f"{overlapping(pairs)}; the score may be too good."] if pairs else []
    contrary = [some for some in several if len({clips[i].label for i in some}) > 1]
    left_out = {i for some in contrary for i in some}
    for some in several:
        # With `allow_overlap` one of each split stays.
        seen: set[str | None] = set()
        for i in some:
            split = clips[i].split if allow_overlap else None
            if split in seen:
                left_out.add(i)
            seen.add(split)
    kept = [clip for i, clip in enumerate(clips) if i not in left_out]
    copies = len(left_out) - sum(map(len, contrary))
    return kept, [*accepted, *_notes(clips, contrary, copies)]


def _in_one_group(clips: Sequence[Clip], content: Mapping[str, Hashable]) -> Sequence[Clip]:
    """Stretches of equal recordings in one group, and the recordings as a whole with them."""
    first: dict[Hashable, str | None] = {}
    for clip in clips:
        if clip.is_stretch:
            first.setdefault(content[clip.path], clip.group)
    return [
        replace(clip, group=first[content[clip.path]]) if content[clip.path] in first else clip
        for clip in clips
    ]


def _torn(several: Iterable[Sequence[Clip]]) -> list[tuple[str, str]]:
    """Of copies that are in train and in valid or test, the names of one on each side."""
    torn = []
    for some in several:
        train = next((clip for clip in some if clip.split == "train"), None)
        held_out = next((clip for clip in some if clip.split in ("valid", "test")), None)
        if train and held_out:
            torn.append((train.path, held_out.path))
    return torn


def _torn_stretches(
    clips: Sequence[Clip], content: Mapping[str, Hashable], has_sound: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """Names of stretches of train and of valid or test that are one sound for most of the shorter:
    of those with equal times see `_torn`."""
    by: dict[Hashable, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.split:
            by[content[clip.path]].append(clip)
    found: list[tuple[str, str]] = []
    for some in by.values():
        if any(clip.is_stretch for clip in some) and len({clip.split for clip in some}) > 1:
            pairs = [*_common(sorted(some, key=_times))]
            found += pairs if pairs and has_sound(some[0].path) else []
    return found


def _common(clips: Sequence[Clip]) -> Iterator[tuple[str, str]]:
    """Those of train and of valid or test, in the order of their begins, that are one sound."""
    begun: list[Clip] = []
    for clip in clips:
        begun = [one for one in begun if _times(one)[1] > _times(clip)[0]]
        for one in begun:
            if (one.split == "train") != (clip.split == "train") and _mostly(one, clip):
                yield (one.name, clip.name) if one.split == "train" else (clip.name, one.name)
        begun.append(clip)


def _mostly(one: Clip, other: Clip) -> bool:
    """Whether two stretches of one recording have most of the shorter in common; of one up to the
    end, whose length nobody knows yet, any of it counts."""
    (begin, end), (start, stop) = _times(one), _times(other)
    if (begin, end) == (start, stop):
        return False
    common = min(end, stop) - max(begin, start)
    shorter = min(end - begin, stop - start)
    return common > 0 and (common == math.inf or common > MOST * shorter)


def _times(clip: Clip) -> tuple[float, float]:
    return clip.start or 0.0, math.inf if clip.end is None else clip.end


def _notes(clips: Sequence[Clip], contrary: Sequence[Sequence[int]], copies: int) -> list[str]:
    notes = []
    if copies:
        are = "1 clip is a copy" if copies == 1 else f"{copies} clips are copies"
        notes.append(f"{are} of another; each recording is kept once.")
    if contrary:
        one, other = (clips[i] for i in _differing(clips, contrary[0]))
        notes.append(
            f"{sum(map(len, contrary))} clips are copies with different labels and left out, as"
            f" {one.path!r} ({one.label}) and {other.path!r} ({other.label})."
        )
    return notes


def _differing(clips: Sequence[Clip], some: Sequence[int]) -> tuple[int, int]:
    first = some[0]
    return first, next(i for i in some if clips[i].label != clips[first].label)


def without_copies(clips: Sequence[Clip], others: Sequence[Clip]) -> list[Clip]:
    """The clips whose recordings are none of `others`, nor copies of them."""
    sizes = {clip.size for clip in others}
    content = contents([*others, *(clip for clip in clips if clip.size in sizes)])
    known = {content[clip.path] for clip in others}
    return [clip for clip in clips if content.get(clip.path) not in known]


def contents(clips: Iterable[Clip]) -> Mapping[str, Hashable]:
    """What two recordings have in common if all their bytes are equal, by path.

    A missing or empty one is like no other.
    """
    sizes = {clip.path: clip.size for clip in clips}
    found: dict[str, Hashable] = {path: path for path in sizes}
    groups = _alike([[path for path, size in sizes.items() if size > 0]], sizes)
    with ThreadPoolExecutor(THREADS) as pool:
        for look in (lambda path: _spot(path, sizes[path]), location.sha256):
            paths = [path for some in groups for path in some]
            groups = _alike(groups, dict(zip(paths, pool.map(look, paths), strict=True)))
    for some in groups:
        found |= {path: ("copy", min(some)) for path in some}
    return found


def _alike(groups: Iterable[list[str]], seen: Mapping[str, Hashable]) -> list[list[str]]:
    """Groups of paths of which something was seen, parted by what it was; none of a single path."""
    parted: list[list[str]] = []
    for some in groups:
        by: dict[Hashable, list[str]] = defaultdict(list)
        for path in filter(seen.__getitem__, some):
            by[seen[path]].append(path)
        parted += [few for few in by.values() if len(few) > 1]
    return parted


def _spot(path: str, size: int) -> str:
    """Digest of some bytes in the middle of a file; "" for one that cannot be read."""
    try:
        with location.open_file(path) as file:
            file.seek(max(0, size // 2 - SPOT_BYTES // 2))
            return hashlib.blake2b(file.read(SPOT_BYTES), digest_size=16).hexdigest()
    except OSError:
        return ""
