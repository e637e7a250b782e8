"""Sounds that are no speech: UrbanSound8K, ESC-50 and ESC-10, TUT Urban 2018, NSynth, birds.

The rule of this file: a table or list of the publishers says what each file is; what was cut of one
recording, or recorded at one place, is a group.
"""

from __future__ import annotations

from unfused.corpora.known.known_set import KnownSet
from unfused.corpora.known.tree import Tree
from unfused.corpora.listing import Listing

NSYNTH_SPLITS = ("train", "valid", "test")
SCENE_LISTS = {"fold1_train.txt": "train", "fold1_evaluate.txt": "test"}
HAS_BIRD = {"0": "no bird", "1": "bird"}


def _urbansound(tree: Tree) -> Listing:
    base, table = tree.base("metadata/UrbanSound8K.csv")
    columns = ("slice_file_name", "fsID", "fold", "class")
    clips = [
        tree.clip(
            f"{base}audio/fold{row['fold']}/{row['slice_file_name']}",
            row["class"],
            group=row["fsID"],
            fold=row["fold"],
        )
        for row in tree.rows(table, columns)
    ]
    return Listing(clips)


def _esc(tree: Tree, *, ten: bool = False) -> Listing:
    base, table = tree.base("meta/esc50.csv")
    columns = ("filename", "fold", "category", "esc10", "src_file")
    clips = [
        tree.clip(
            f"{base}audio/{row['filename']}",
            row["category"],
            group=row["src_file"],
            fold=row["fold"],
        )
        for row in tree.rows(table, columns)
        if not ten or row["esc10"].lower() == "true"
    ]
    return Listing(clips)


def _esc10(tree: Tree) -> Listing:
    return _esc(tree, ten=True)


def _scenes(tree: Tree) -> Listing:
    clips = []
    for file, split in SCENE_LISTS.items():
        base, listed = tree.base(f"evaluation_setup/{file}")
        for line in tree.lines(listed):
            name, label = line.split("\t")[:2]
            clips.append(tree.clip(base + name, label, split=split, group=_location(name)))
    return Listing(clips)


def _location(name: str) -> str:
    """City and number of the place, of `audio/SCENE-CITY-PLACE-SEGMENT-DEVICE.wav`."""
    return "-".join(name.rpartition("/")[2].split("-")[1:3])


def _nsynth(tree: Tree) -> Listing:
    clips, notes = [], []
    keys = ("instrument_family_str", "instrument_str")
    for split in NSYNTH_SPLITS:
        folder = f"nsynth-{split}"
        if not any(f"/{name}".endswith(f"/{folder}/examples.json") for name in tree.files):
            notes.append(f"{folder}/examples.json is not there, and no clip of {split}")
            continue
        base, table = tree.base(f"{folder}/examples.json")
        clips += [
            tree.clip(
                f"{base}{folder}/audio/{name}.wav",
                facts["instrument_family_str"],
                split=split,
                group=facts["instrument_str"],
            )
            for name, facts in tree.entries(table, keys)
        ]
    if len(notes) == len(NSYNTH_SPLITS):
        raise tree.lacking("nsynth-train/examples.json")
    return Listing(clips, tuple(notes))


def _freefield(tree: Tree) -> Listing:
    return _birds(tree, "ff1010bird_metadata.csv", "ff1010bird_metadata_2018.csv")


def _warblr(tree: Tree) -> Listing:
    names = ("warblrb10k_public_metadata.csv", "warblrb10k_public_metadata_2018.csv")
    return _birds(tree, *names)


def _birds(tree: Tree, *tables: str) -> Listing:
    base, table = tree.base(*tables, "metadata.csv")
    by_end, clips = tree.by_end(2), []
    for row in tree.rows(table, ("itemid", "hasbird")):
        end = f"wav/{row['itemid']}.wav"
        clips.append(tree.clip(by_end.get(end, base + end), HAS_BIRD[row["hasbird"].strip()]))
    return Listing(clips)


ESC_SOURCE = "K. J. Piczak, ESC, ACM Multimedia 2015, doi:10.1145/2733373.2806390"
BIRD_SOURCE = "D. Stowell et al., Bird detection in audio, MLSP 2016, arXiv:1608.03417"

SETS = (
    KnownSet(
        "nsynth",
        "NSynth, instrument families",
        "J. Engel et al., NSynth, ICML 2017, arXiv:1704.01279",
        num_classes=11,
        split="its three parts; instruments as groups",
        clips_of=_nsynth,
        num_clips=305_979,
        hours=340,
        licence="CC BY 4.0",
    ),
    KnownSet(
        "freefield1010",
        "freefield1010, birds",
        BIRD_SOURCE,
        num_classes=2,
        split="none published: by class",
        clips_of=_freefield,
        num_clips=7_690,
        hours=21.4,
        gigabytes=5.8,
        licence="CC BY 4.0",
    ),
    KnownSet(
        "warblrb10k",
        "Warblr 10k, birds",
        BIRD_SOURCE,
        num_classes=2,
        split="none published: by class",
        clips_of=_warblr,
        num_clips=8_000,
        hours=22.2,
        gigabytes=4.3,
        licence="CC BY 4.0",
    ),
    KnownSet(
        "tut_urban_2018",
        "TUT Urban Acoustic Scenes 2018, development",
        "A. Mesaros et al., DCASE 2018, arXiv:1807.09840, doi:10.5281/zenodo.1228142",
        num_classes=10,
        split="its lists fold1_train.txt and fold1_evaluate.txt (test); places of a city as groups",
        clips_of=_scenes,
        num_clips=8_640,
        hours=24,
        licence="its own, not commercial",
    ),
    KnownSet(
        "urbansound8k",
        "UrbanSound8K",
        "J. Salamon et al., ACM Multimedia 2014, doi:10.1145/2647868.2655045",
        num_classes=10,
        split="its ten folds; recordings of Freesound as groups",
        clips_of=_urbansound,
        num_clips=8_732,
        hours=8.75,
        gigabytes=6.0,
        licence="CC BY-NC 3.0",
        num_folds=10,
    ),
    KnownSet(
        "esc50",
        "ESC-50",
        ESC_SOURCE,
        num_classes=50,
        split="its five folds; recordings of Freesound as groups",
        clips_of=_esc,
        num_clips=2_000,
        hours=2.8,
        gigabytes=0.6,
        licence="CC BY-NC 3.0",
        num_folds=5,
    ),
    KnownSet(
        "esc10",
        "ESC-10",
        ESC_SOURCE,
        num_classes=10,
        split="its five folds; recordings of Freesound as groups",
        clips_of=_esc10,
        num_clips=400,
        hours=0.6,
        gigabytes=0.6,
        licence="CC BY 3.0",
        num_folds=5,
        home="esc50",
    ),
)
