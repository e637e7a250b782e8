"""Speech Commands, words of a second by thousands of people, in versions 1 and 2.

The rule of this file: train is what neither `validation_list.txt` nor `testing_list.txt` names. The
task of twelve classes is ten words, `_unknown_` (all other words) and `_silence_` (stretches of
the background noise); its test clips are the test set that was published beside it, where that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from unfused.corpora.clip import Clip
from unfused.corpora.known.known_set import KnownSet
from unfused.corpora.known.tree import Tree
from unfused.corpora.listing import Listing

LISTS = {"validation_list.txt": "valid", "testing_list.txt": "test"}
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
NOISE = "_background_noise_"
TEST_SET = "speech_commands_test_set"
NOISE_SPLITS = {"running_tap": "valid"}
"""The recording that no word's split decides; the others are train's."""
NOISE_OF_TEST = "exercise_bike"
"""Of which test clips are cut where the published ones are not there."""
WAV_HEADER, BYTES_PER_SECOND = 44, 32_000
"""Of 16 kHz, 16 bit, mono."""
HOP = 0.5
"""Seconds from one stretch of noise to the next."""


def _words(tree: Tree) -> list[Clip]:
    """Every word that is there, and those that a list names and are not."""
    base, _ = tree.base("testing_list.txt", "validation_list.txt")
    split_of: dict[str, str] = {}
    for name, split in LISTS.items():
        if base + name not in tree.files:
            raise tree.lacking(name)
        split_of |= {base + line: split for line in tree.lines(base + name)}
    names = {name for name in tree.files if _is_word(name.removeprefix(base))} | set(split_of)
    clips = []
    for name in sorted(name for name in names if name.startswith(base)):
        label, split = name.split("/")[-2], split_of.get(name, "train")
        clips.append(tree.clip(name, label, split=split, group=_speaker(name)))
    return clips


def _is_word(name: str) -> bool:
    folder, _, file = name.partition("/")
    return "/" not in file and file.endswith(".wav") and not folder.startswith("_")


def _speaker(name: str) -> str | None:
    """The hash of the person who speaks, where the file is called after it."""
    speaker, found, _ = name.rpartition("/")[2].partition("_nohash_")
    return speaker if found else None


def _all_words(tree: Tree) -> Listing:
    return Listing(_words(tree))


def _twelve(tree: Tree) -> Listing:
    published = list(_published_test(tree))
    base, _ = tree.base("testing_list.txt")
    words = [
        clip if clip.label in WORDS else replace(clip, label=UNKNOWN)
        for clip in _words(tree)
        if not (published and clip.split == "test")
    ]
    noise = [clip for name in tree.files for clip in _stretches(tree, base, name, bool(published))]
    told = (
        f"test is the published test set of {len(published):,} clips"
        if published
        else f"there is no folder {TEST_SET}_v0.01 or _v0.02: test is all of testing_list.txt,"
        f" other words as {UNKNOWN}, and {NOISE_OF_TEST}.wav as {SILENCE}"
    )
    return Listing([*words, *noise, *published], (told,))


def _published_test(tree: Tree) -> Iterator[Clip]:
    """The clips of the twelve folders that were published to be tested on."""
    known = {*WORDS, UNKNOWN, SILENCE}
    for name in tree.files:
        *above, label, file = ["", "", *name.split("/")]
        inside = any(part.startswith(TEST_SET) for part in above)
        if inside and label in known and file.endswith(".wav"):
            yield tree.clip(name, label, split="test", group=_speaker(name))


def _stretches(tree: Tree, base: str, name: str, published: bool) -> Iterator[Clip]:
    """A second of background noise at every half; its length is read off the file's size."""
    file = name.removeprefix(f"{base}{NOISE}/")
    if file == name or not file.endswith(".wav"):
        return
    stem = file.removesuffix(".wav")
    split = NOISE_SPLITS.get(stem, "train")
    if stem == NOISE_OF_TEST and not published:
        split = "test"
    seconds = (tree.files[name][0] - WAV_HEADER) / BYTES_PER_SECOND
    for step in range(int((seconds - 1) / HOP) + 1 if seconds >= 1 else 0):
        start = step * HOP
        yield replace(tree.clip(name, SILENCE, split=split, group=stem), start=start, end=start + 1)


SOURCE = "P. Warden, Speech Commands, 2018, arXiv:1804.03209"
SPLIT = "its lists validation_list.txt and testing_list.txt; speakers as groups"
SPLIT_12 = "the same, other words as _unknown_, noise as _silence_; test: its published test set"

_version_1 = partial(KnownSet, source=SOURCE, gigabytes=1.5, licence="CC BY 4.0")
_version_2 = partial(KnownSet, source=SOURCE, gigabytes=2.4, licence="CC BY 4.0")

SETS = (
    _version_1(
        "speech_commands_v1",
        "Speech Commands 0.01",
        num_classes=30,
        split=SPLIT,
        clips_of=_all_words,
        num_clips=64_721,
    ),
    _version_1(
        "speech_commands_v1_12",
        "Speech Commands 0.01, twelve classes",
        num_classes=12,
        split=SPLIT_12,
        clips_of=_twelve,
        home="speech_commands_v1",
    ),
    _version_2(
        "speech_commands_v2",
        "Speech Commands 0.02",
        num_classes=35,
        split=SPLIT,
        clips_of=_all_words,
        num_clips=105_829,
    ),
    _version_2(
        "speech_commands_v2_12",
        "Speech Commands 0.02, twelve classes",
        num_classes=12,
        split=SPLIT_12,
        clips_of=_twelve,
        num_clips=100_503,
        home="speech_commands_v2",
    ),
)
