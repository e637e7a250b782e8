"""Lists clips: manifests and folders, splits and folds, the demo corpus.

The rule of this room: it says which clips there are and what each is for, and opens none of them.
"""

from unfused.corpora.clip import Clip, ManifestError
from unfused.corpora.counts import count_lines, doubt, warnings
from unfused.corpora.demo import write as demo_manifests
from unfused.corpora.listing import Columns, Listing
from unfused.corpora.manifest import read
from unfused.corpora.overlap import OverlapError
from unfused.corpora.repeats import without_copies, without_repeats
from unfused.corpora.splits import (
    as_corpus,
    assign,
    check_task,
    folds,
    for_fold,
    label_map,
    split_off_unlabelled,
)
from unfused.corpora.title import title

__all__ = [
    "Clip",
    "Columns",
    "Listing",
    "ManifestError",
    "OverlapError",
    "as_corpus",
    "assign",
    "check_task",
    "count_lines",
    "demo_manifests",
    "doubt",
    "folds",
    "for_fold",
    "label_map",
    "read",
    "split_off_unlabelled",
    "title",
    "warnings",
    "without_copies",
    "without_repeats",
]
