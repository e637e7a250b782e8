"""Data sets as they are published: their clips, splits, folds and groups, and what is missing.

    reading           NAME:DIR, and all of the sets by name
    known_set         what there is to know of one
    tree              its files, where it was unpacked
    speech_commands, speakers, speech, sounds    the sets

The rule of this room: classes, splits, folds and groups are the publishers', and nothing that they
did not publish is made up; a set is a row of data and a function that lists its clips.
"""

from unfused.corpora.known.known_set import KnownSet
from unfused.corpora.known.reading import SETS, names, read

__all__ = ["SETS", "KnownSet", "names", "read"]
