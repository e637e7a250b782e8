"""Emotions and languages of speech: IEMOCAP and VoxForge.

The rule of this file: a class is what the publishers say of an utterance; who speaks is its group.
"""

from __future__ import annotations

import re

from unfused.corpora.known.known_set import KnownSet
from unfused.corpora.known.tree import Tree
from unfused.corpora.listing import Listing

EVALUATION = re.compile(r"^(.*?)Session([1-5])/dialog/EmoEvaluation/[^/.][^/]*\.txt$")
TURN = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+)\t(\w+)\t")
EMOTIONS = {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"}
"""Excitement counts as happiness."""

SUBMISSION = re.compile(
    r"(?:^|/)(de|en|es|fr|it|ru)/(?:.*/)?([^/]+)/(?:wav|flac)/[^/]+\.(?:wav|flac)$"
)
DATED = re.compile(r"-\d{8}.*$")
NOBODY = "anonymous"


def _iemocap(tree: Tree) -> Listing:
    clips, others = [], 0
    tables = [(name, place) for name in tree.files if (place := EVALUATION.match(name))]
    if not tables:
        raise tree.lacking("Session1/dialog/EmoEvaluation/*.txt")
    for name, place in tables:
        for line in tree.lines(name):
            if not (turn := TURN.match(line)):
                continue
            utterance, emotion = turn.groups()
            if emotion not in EMOTIONS:
                others += 1
                continue
            dialog, _, who = utterance.rpartition("_")
            session = place[2]
            file = f"{place[1]}Session{session}/sentences/wav/{dialog}/{utterance}.wav"
            speaker = f"Ses0{session}{who[0]}"
            clips.append(tree.clip(file, EMOTIONS[emotion], group=speaker, fold=session))
    total = len(clips) + others
    told = f"{others:,} of {total:,} utterances show another emotion than the four, left out"
    return Listing(clips, (told,) if others else ())


def _voxforge(tree: Tree) -> Listing:
    found = [(name, match) for name in tree.files if (match := SUBMISSION.search(name))]
    if not found:
        raise tree.lacking("LANGUAGE/SPEAKER-DATE-NAME/wav/*.wav, as in de/")
    return Listing([tree.clip(name, match[1], group=_who(match[2])) for name, match in found])


def _who(submission: str) -> str:
    """The person who sent it; of those without a name each submission is somebody else's."""
    person = DATED.sub("", submission)
    return submission if person.lower() == NOBODY else person


SETS = (
    KnownSet(
        "iemocap",
        "IEMOCAP, four emotions",
        "C. Busso et al., IEMOCAP, Language Resources and Evaluation 42, 2008,"
        " doi:10.1007/s10579-008-9076-6",
        num_classes=4,
        split="its five sessions as folds; speakers as groups",
        clips_of=_iemocap,
        num_clips=5_531,
        licence="its own, on request",
        num_folds=5,
    ),
    KnownSet(
        "voxforge",
        "VoxForge, six languages",
        "VoxForge, voxforge.org",
        num_classes=6,
        split="none published: by class, speakers as groups",
        clips_of=_voxforge,
        licence="GPL",
    ),
)
