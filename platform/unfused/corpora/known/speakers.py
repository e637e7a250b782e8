"""Data sets whose classes are people: LibriSpeech train-clean-100 and VoxCeleb1.

The rule of this file: what was recorded in one go, a chapter or a video, is a group. LibriSpeech's
classes are its 251 speakers; the 585 of UnFuSeD's code is the number of their chapters.
"""

from __future__ import annotations

import re

from unfused.corpora import sessions
from unfused.corpora.known.known_set import KnownSet
from unfused.corpora.known.tree import Tree
from unfused.corpora.listing import Listing

PART = "train-clean-100"
UTTERANCE = re.compile(r"(?:^|/)(\d+)/(\d+)/(\1-\2-\d+)\.(?:flac|wav)$")
VIDEO_SPLITS = {"1": "train", "2": "valid", "3": "test"}


def _librispeech(tree: Tree) -> Listing:
    found = [(name, match) for name in tree.files if (match := UTTERANCE.search(name))]
    inside = [(name, match) for name, match in found if PART in f"{tree.place}/{name}".split("/")]
    if not found:
        raise tree.lacking(f"{PART}/SPEAKER/CHAPTER/*.flac")
    clips = [
        tree.clip(name, match[1], group=f"{match[1]}-{match[2]}") for name, match in inside or found
    ]
    # People who read too few chapters to have one in each split are divided clip by clip.
    clips, torn = sessions.where_they_can(clips)
    return Listing(clips, tuple(torn))


def _voxceleb(tree: Tree) -> Listing:
    base, listed = tree.base("iden_split.txt")
    by_end = tree.by_end(3)
    clips = []
    for line in tree.lines(listed):
        number, _, end = line.partition(" ")
        speaker, video, _ = end.split("/")
        split = VIDEO_SPLITS[number]
        name = by_end.get(end, f"{base}wav/{end}")
        clips.append(tree.clip(name, speaker, split=split, group=f"{speaker}/{video}"))
    return Listing(clips)


SETS = (
    KnownSet(
        "librispeech_100",
        "LibriSpeech train-clean-100, speakers",
        "V. Panayotov et al., LibriSpeech, ICASSP 2015; openslr.org/12",
        num_classes=251,
        split="none published for speakers: by class, with chapters as groups where a speaker has"
        " three or more",
        clips_of=_librispeech,
        num_clips=28_539,
        hours=100.6,
        gigabytes=6.3,
        licence="CC BY 4.0",
        remark="it has 251 speakers; the 585 of UnFuSeD's code is the number of their chapters",
    ),
    KnownSet(
        "voxceleb1",
        "VoxCeleb1, identification",
        "A. Nagrani et al., VoxCeleb, Interspeech 2017, arXiv:1706.08612",
        num_classes=1251,
        split="its list iden_split.txt (1 train, 2 valid, 3 test); videos as groups",
        clips_of=_voxceleb,
        num_clips=153_516,
        hours=352,
        licence="CC BY 4.0",
    ),
)
