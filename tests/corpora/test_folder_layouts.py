"""What the layout of a folder says of its clips."""

from __future__ import annotations

import pytest

from unfused import corpora
from unfused.corpora import Clip, Columns, ManifestError


@pytest.fixture
def listing(tmp_path):
    """`listing("dog/a.wav", ...)` is what is read of a folder with these files."""

    def read(*names: str):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        return corpora.read(tmp_path)

    return read


def test_sessions_below_a_class_are_groups(listing):
    found = listing("dog/session1/a.wav", "dog/session2/b.wav", "cat/session1/c.wav", "cat/d.wav")
    assert [(c.label, c.group) for c in found.clips] == [
        ("cat", None), ("cat", "session1"), ("dog", "session1"), ("dog", "session2"),
    ]  # fmt: skip
    assert any("2 of them" in note for note in found.notes)


def test_sessions_below_a_class_below_a_split_are_groups_too(listing):
    found = listing("train/dog/s1/a.wav", "test/dog/s2/b.wav")
    assert [(c.split, c.label, c.group) for c in found.clips] == [
        ("test", "dog", "s2"), ("train", "dog", "s1"),
    ]  # fmt: skip


def test_unlabelled_clips_may_lie_beside_the_folders_of_splits(listing):
    found = listing("train/dog/a.wav", "test/dog/b.wav", "unlabeled/c.wav", "noise.wav")
    assert {(c.name, c.split, c.label) for c in found.clips} == {
        ("train/dog/a.wav", "train", "dog"), ("test/dog/b.wav", "test", "dog"),
        ("unlabeled/c.wav", None, None), ("noise.wav", None, None),
    }  # fmt: skip


def test_other_folders_beside_those_of_splits_are_refused_but_not_in_a_corpus(listing, tmp_path):
    with pytest.raises(ManifestError, match=r"splits \(test, train\) and 'noise' beside"):
        listing("train/dog/a.wav", "test/dog/b.wav", "noise/c.wav")
    assert len(corpora.read(tmp_path, labelled=False).clips) == 3


def test_folds_without_classes_in_them_are_refused_but_not_in_a_corpus(listing, tmp_path):
    with pytest.raises(ManifestError, match=r"are folds \(fold1, fold2, ...\).*manifest"):
        listing("audio/fold1/a.wav", "audio/fold2/b.wav")
    assert len(corpora.read(tmp_path, labelled=False).clips) == 2


@pytest.mark.parametrize("sites", [("siteA", "siteB"), ("wav", "mp3"), ("part1", "part2", "p3")])
def test_folders_that_hold_the_same_folders_are_doubted(listing, sites):
    found = listing(*(f"{site}/{kind}/{site}.wav" for site in sites for kind in ("dog", "cat")))
    assert any("same folders in it (cat, dog)" in note for note in found.notes)


@pytest.mark.parametrize("inside", [("s1", "s2"), ("2024-01", "rainy day"), (".", "near")])
def test_sessions_below_classes_are_not_doubted(listing, inside):
    found = listing(*(f"{kind}/{place}/{kind}.wav" for kind in ("dog", "cat") for place in inside))
    assert not any("same folders" in note for note in found.notes)


def test_a_folder_in_a_folder_is_looked_into(listing):
    found = listing("data/audio/dog/a.wav", "data/audio/cat/b.wav")
    assert [clip.label for clip in found.clips] == ["cat", "dog"]
    assert found.notes[0] == "All clips lie in 'data/audio'; the classes are the folders in it."


def test_a_column_that_is_named_for_a_folder_is_refused(listing, tmp_path):
    listing("dog/a.wav", "cat/b.wav")
    with pytest.raises(ManifestError, match=r"is a folder, .*leave"):
        corpora.read(tmp_path, Columns(label="x"))
    assert len(corpora.read(tmp_path, Columns(label="x"), labelled=False).clips) == 2


def test_folders_of_folds_are_folds(listing):
    found = listing("fold1/dog/a.wav", "fold2/dog/b.wav", "fold10/cat/c.wav")
    assert [(c.fold, c.label) for c in found.clips] == [("1", "dog"), ("10", "cat"), ("2", "dog")]


def test_files_beside_the_folders_of_classes_are_told(listing):
    found = listing("dog/a.wav", "cat/b.wav", "stray.wav")
    assert found.notes == ("1 clip lies beside the folders of the classes and has no label.",)


def test_what_is_no_audio_is_counted_by_its_ending(listing):
    found = listing("dog/a.m4a", "cat/b.AIFF", "cat/c.amr", "dog/x.jpg", "dog/y.jpg", "notes.docx")
    assert [clip.name for clip in found.clips] == ["cat/b.AIFF", "cat/c.amr", "dog/a.m4a"]
    assert found.notes[0] == "3 files are no audio by name and left out: 2 .jpg, 1 .docx."


def test_a_folder_without_audio_says_what_is_in_it(listing):
    with pytest.raises(ManifestError, match=r"no audio in .* \(there are 2 .jpg\)"):
        listing("a/x.jpg", "b/y.jpg")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("notes.json", '[{"audio": "dog/a.wav", "note": "loud"}]', "has tasks without regions"),
        ("notes.json", '[{"audio": "dog/a.wav", "annotations": "x"}]', "has tasks without regions"),
        ("dog/a.txt", "0.0\t120.5\t0.9\n0.1\t121\t.8\n", "has numbers where"),
        ("dog/a.txt", "0.0\t120.5\tNaN\n0.1\t121,5\n.2\t9\n.3\tnan\n", "has numbers where"),
    ],
)
def test_files_that_are_no_annotations_leave_the_folders_their_classes(
    listing, tmp_path, name, text, told
):
    listing("dog/a.wav", "cat/b.wav")
    (tmp_path / name).write_text(text)
    found = listing()
    assert [(clip.name, clip.label) for clip in found.clips] == [
        ("cat/b.wav", "cat"), ("dog/a.wav", "dog"),
    ]  # fmt: skip
    assert found.notes[0].startswith(f"1 file {told}") and repr(name) in found.notes[0]


def test_numbers_are_labels_where_there_are_no_classes_or_words_among_them(listing, tmp_path):
    listing("a.wav", "b.wav")
    (tmp_path / "a.txt").write_text("0\t1\t7\n2\t3\t8\n")
    assert {clip.label for clip in listing().clips} == {"7", "8", None}
    (tmp_path / "a.txt").write_text("0\t1\t7\n2\t3\towl 2\n")
    assert {clip.label for clip in listing("night/c.wav").clips} == {"7", "owl 2", None}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["2024-05-01/a.wav", "2024-05-02/b.wav", "2024-05-02/c.wav"], "look like days"),
        (["session 1/a.wav", "session 2/b.wav"], "look like days"),
        (["x/a.wav", "y/b.wav", "z/c.wav", "z/d.wav"], "2 of 3 folders hold a single clip"),
    ],
)
def test_a_doubtful_layout_is_said_to_be_so(listing, names, told):
    assert told in listing(*names).notes[-1]


def test_rare_and_uneven_classes_are_told():
    sizes = {"owl": 50, "fox": 2, "elk": 6}
    task = [
        Clip(f"/{label}{i}", label, ("train", "train", "test")[i % 3])
        for label, count in sizes.items()
        for i in range(count)
    ]
    rare, few, uneven, _ = corpora.warnings([task], "test")
    assert rare == "fewer than 3 clips, too few for every split: 'fox' 2."
    assert few == "fewer than 5 test clips: 'elk' 2."
    assert uneven.startswith("'owl' has 25 times the clips of 'fox'")


def test_an_empty_folder_that_is_named_like_a_clip_is_told_of_like_one(listing, tmp_path):
    (tmp_path / "dog/b.wav").mkdir(parents=True)
    names = [clip.name for clip in listing("dog/a.wav", "dog/c.wav/d.wav").clips]
    assert sorted(names) == ["dog/a.wav", "dog/b.wav", "dog/c.wav/d.wav"]
