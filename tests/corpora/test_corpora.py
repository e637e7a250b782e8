"""Manifests, folders, splits and the demo corpus say which clips there are and what for."""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import wave
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unfused import corpora
from unfused.corpora import Clip, ManifestError, demo, location

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def clips_in(source):
    return corpora.read(source).clips


def touch(folder: Path, *names: str, content: bytes = b"audio") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def manifest(folder: Path, text: str, name: str = "task.csv") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def clips_of(classes: dict[str, int], **fields) -> list[Clip]:
    names = [(label, f"{label}/{i}.wav") for label, count in classes.items() for i in range(count)]
    return [Clip(f"/data/{name}", label, name=name, **fields) for label, name in names]


def sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


# Manifests


def test_a_csv_manifest_lists_clips_relative_to_itself(tmp_path):
    touch(tmp_path, "clips/a.wav", "b.wav", content=b"12345")
    source = manifest(
        tmp_path,
        "path,label,split,group,fold,speaker\n"
        "clips/a.wav,dog,train,s1,1,ann\n"
        f"{tmp_path}/b.wav,cat,test,s2,2,bob\n",
    )
    a, b = clips_in(source)
    status = os.stat(tmp_path / "clips/a.wav")
    assert a == Clip(
        str(tmp_path / "clips/a.wav"),
        *("dog", "train", "s1", "1"),
        size=5,
        modified=str(status.st_mtime_ns),
        name="clips/a.wav",
    )
    assert (b.path, b.label, b.split) == (str(tmp_path / "b.wav"), "cat", "test")


def test_labels_are_text_exactly_as_written(tmp_path):
    labels = ["0", "00000001", "1.0", "true", "NA", "null", "dog", "chien, méchant"]
    with (tmp_path / "task.csv").open("w", newline="", encoding="utf-8-sig") as file:
        rows = [[f"{i}.wav", label] for i, label in enumerate(labels)]
        csv.writer(file).writerows([["path", "label"], *rows])
    assert [clip.label for clip in clips_in(tmp_path / "task.csv")] == labels


def test_parquet_numbers_become_the_text_that_a_csv_would_have(tmp_path):
    columns = {
        "path": ["a.wav", "b.wav"],
        "label": pa.array([0, 10]),
        "fold": pa.array(["x", None]).dictionary_encode(),
        "embedding": [[0.5], [1.5]],
    }
    pq.write_table(pa.table(columns), tmp_path / "task.parquet")
    a, b = clips_in(str(tmp_path / "task.parquet"))
    assert [(c.path, c.label, c.fold) for c in (a, b)] == [
        (str(tmp_path / "a.wav"), "0", "x"),
        (str(tmp_path / "b.wav"), "10", None),
    ]


@pytest.mark.parametrize("column", ["path", "files", "wav", "wav_path"])
def test_the_column_names_of_lape_are_understood(tmp_path, column):
    (clip,) = clips_in(manifest(tmp_path, f"{column},labels\nx.wav,7\n"))
    assert (clip.path, clip.label) == (str(tmp_path / "x.wav"), "7")


def test_the_usual_names_of_splits_are_understood(tmp_path):
    given = ["train", "Training", "valid", "validation", "val", "dev", "test", "testing", "EVAL"]
    rows = "".join(f"{i}.wav,x,{split}\n" for i, split in enumerate(given))
    clips = clips_in(manifest(tmp_path, "path,label,split\n" + rows))
    assert Counter(clip.split for clip in clips) == {"train": 2, "valid": 4, "test": 3}


def test_empty_cells_mean_no_label_and_no_split(tmp_path):
    (clip,) = clips_in(manifest(tmp_path, "path,label,split,group,fold\nx.wav,,,,\n"))
    assert (clip.label, clip.split, clip.group, clip.fold) == (None,) * 4


def test_a_missing_file_is_listed_to_be_quarantined_later(tmp_path):
    (clip,) = clips_in(manifest(tmp_path, "path\nnowhere.wav\n"))
    assert (clip.size, clip.modified) == (-1, "")


def test_a_row_that_is_repeated_counts_once(tmp_path):
    text = "path,label\nx.wav,a\ny.wav,b\n./x.wav,a\n"
    assert [clip.name for clip in clips_in(manifest(tmp_path, text))] == ["x.wav", "y.wav"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("task.csv", "sound,label\nx.wav,a\n", "no column `path`, only sound, label; name"),
        ("task.csv", "", "no column `path`, only nothing; name"),
        ("task.csv", "path,label\n", "lists no clips; add"),
        ("task.csv", "path,label\n,a\n", "Row 1 of .* has no path; name"),
        ("task.csv", "path,split\nx.wav,train\ny.wav,holdout\n", "Row 2 .*'holdout'; use train"),
        ("task.csv", "path,label,split\nx.wav,a,train\ny.wav,a,\n", "Row 2 .* split ''; use train"),
        ("task.csv", "path,label\nx.wav,a,b\n", "3 cells where the header has 2 in line 2.*quote"),
        ("task.csv", "path,label\nx.wav,a\nx.wav,b\n", "label 'a' and with 'b'; keep one"),
        ("task.csv", "path,split\nx.wav,train\nx.wav,test\n", "split 'train' and with 'test'"),
        ("task.csv", "path,fold\nx.wav,1\nx.wav,2\n", "fold '1' and with '2'; keep one"),
        ("task.parquet", "path\nx.wav\n", "Cannot read .*; save it again"),
        ("task.md", "path\nx.wav\n", "give a .csv, a .parquet or a folder"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_with_the_remedy(tmp_path, name, text, told):
    source = manifest(tmp_path, text, name)
    with pytest.raises(ManifestError, match=told) as error:
        clips_in(source)
    assert source in sentence(error)


def test_a_manifest_that_is_not_there_or_torn_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"no file or folder '.*absent.csv'; check") as error:
        clips_in(str(tmp_path / "absent.csv"))
    sentence(error)
    (tmp_path / "torn.csv").write_bytes(b'path\n"mu')
    with pytest.raises(ManifestError, match="Cannot read") as error:
        clips_in(str(tmp_path / "torn.csv"))
    sentence(error)


# Folders


def test_a_folder_of_classes_is_labelled_by_its_folders(tmp_path):
    touch(tmp_path, "dog/2.WAV", "dog/1.flac", "cat/x.mp3", "animals/wild/fox/f.ogg", "loose.opus")
    touch(tmp_path, "dog/notes.txt", ".cache/dog/3.wav", "cat/._x.mp3")
    clips = clips_in(str(tmp_path))
    assert [(clip.name, clip.label) for clip in clips] == [
        ("animals/wild/fox/f.ogg", "animals"),
        ("cat/x.mp3", "cat"),
        ("dog/1.flac", "dog"),
        ("dog/2.WAV", "dog"),
        ("loose.opus", None),
    ]
    assert all(c.path == str(tmp_path / c.name) and c.size == 5 and c.split is None for c in clips)
    assert [clip.group for clip in clips] == ["wild/fox", None, None, None, None]


def test_a_flat_folder_is_unlabelled(tmp_path):
    touch(tmp_path, "b.wav", "a.wav", "c.oga")
    clips = clips_in(f"{tmp_path}/")
    assert [(c.name, c.label, c.split) for c in clips] == [
        (name, None, None) for name in ("a.wav", "b.wav", "c.oga")
    ]


def test_first_folders_that_are_all_splits_are_splits(tmp_path):
    touch(tmp_path / "yes", "train/dog/1.wav", "Val/dog/2.wav", "test/3.wav")
    found = [(c.label, c.split) for c in clips_in(str(tmp_path / "yes"))]
    assert found == [("dog", "valid"), (None, "test"), ("dog", "train")]
    touch(tmp_path / "no", "train/1.wav", "test/2.wav", "plane/3.wav")
    found = [(c.label, c.split) for c in clips_in(str(tmp_path / "no"))]
    assert found == [("plane", None), ("test", None), ("train", None)]


def test_a_folder_without_audio_is_refused(tmp_path):
    touch(tmp_path, "readme.txt", ".hidden.wav")
    with pytest.raises(ManifestError, match=r"no audio in .*; give a folder with \.wav") as error:
        clips_in(str(tmp_path))
    sentence(error)


def test_names_that_a_uri_would_garble_stay_themselves(tmp_path):
    names = ["50% off.wav", "a b.wav", "c#1?.wav", "é.wav"]
    touch(tmp_path, *names)
    clips = clips_in(str(tmp_path))
    assert [clip.name for clip in clips] == sorted(names)
    assert [clip.name for clip in clips_in(tmp_path.as_uri())] == sorted(names)
    assert location.read_bytes(clips[0].path) == b"audio"


# Object stores


def test_a_folder_in_an_object_store_is_read_like_a_local_one(bucket, credentials):
    put, query = bucket
    put("set/dog/a b#1.wav", b"123")
    put("set/cat/50%.wav", b"12345")
    clips = clips_in(f"s3://clips/set/{query}")
    assert [(c.name, c.label, c.size) for c in clips] == [
        ("cat/50%.wav", "cat", 5),
        ("dog/a b#1.wav", "dog", 3),
    ]
    assert [location.read_bytes(c.path) for c in clips] == [b"12345", b"123"]
    assert all(int(clip.modified) > 0 for clip in clips)


def test_a_manifest_in_an_object_store_lists_clips_relative_to_itself(bucket, credentials):
    put, query = bucket
    put("audio/a b.wav", b"1234")
    put("lists/task.csv", b"path,label\n../audio/a b.wav,x\ngone.wav,y\n/local.wav,z\n")
    found, gone, local = clips_in(f"s3://clips/lists/task.csv{query}")
    assert location.read_bytes(found.path) == b"1234"
    assert (found.size, gone.size, local.path) == (4, -1, "/local.wav")
    assert int(found.modified) > 0


def test_an_address_of_an_unknown_kind_is_refused():
    with pytest.raises(ManifestError, match=r"Cannot open 'ftp://host'.*use a local path") as error:
        clips_in("ftp://host/folder")
    sentence(error)


# Splits


def test_a_split_meets_its_fractions_and_covers_every_class():
    clips = corpora.assign(clips_of({"a": 2000, "b": 1000, "c": 3}), 0.1, 0.2, seed=0)
    share = Counter((clip.label, clip.split) for clip in clips)
    assert share["a", "test"] == 400
    assert share["b", "valid"] == 100
    assert [share["c", split] for split in ("train", "valid", "test")] == [1, 1, 1]


def test_a_split_depends_on_the_seed_and_on_nothing_else():
    clips = clips_of({"a": 100, "b": 100})
    split = {c.path: c.split for c in corpora.assign(clips, 0.2, 0.2, seed=0)}
    again = {c.path: c.split for c in corpora.assign(clips[::-1], 0.2, 0.2, seed=0)}
    other = {c.path: c.split for c in corpora.assign(clips, 0.2, 0.2, seed=1)}
    assert split == again
    assert split != other


def test_clips_that_are_moved_keep_their_split():
    clips = clips_of({"a": 50, "b": 50})
    moved = [replace(clip, path=clip.path.replace("/data", "/elsewhere")) for clip in clips]
    before = [clip.split for clip in corpora.assign(clips, 0.2, 0.2, 0)]
    assert [clip.split for clip in corpora.assign(moved, 0.2, 0.2, 0)] == before


def test_clips_that_are_added_move_few_of_the_others():
    clips = clips_of({"a": 60, "b": 60, "c": 60})
    before = {c.path: c.split for c in corpora.assign(clips[::2], 0.2, 0.2, 0)}
    after = {c.path: c.split for c in corpora.assign(clips, 0.2, 0.2, 0)}
    assert sum(after[path] != split for path, split in before.items()) < 9


def test_a_group_is_never_torn_apart():
    clips = [
        replace(clip, group=f"speaker {i % 17}")
        for i, clip in enumerate(clips_of({"a": 100, "b": 100}))
    ]
    split = corpora.assign(clips, 0.2, 0.2, 0)
    places = {clip.group: {c.split for c in split if c.group == clip.group} for clip in split}
    assert all(len(splits) == 1 for splits in places.values())
    assert set().union(*places.values()) == {"train", "valid", "test"}


@pytest.mark.parametrize("seed", range(20))
def test_every_class_that_can_be_is_in_every_split(seed):
    rng = np.random.default_rng(seed)
    classes = {f"c{i}": int(count) for i, count in enumerate(rng.integers(1, 7, 12))}
    found: dict[str, set] = {label: set() for label in classes}
    for clip in corpora.assign(clips_of(classes), 0.15, 0.15, seed):
        found[clip.label].add(clip.split)
    for label, count in classes.items():
        assert "train" in found[label]
        assert len(found[label]) == 3 or count < 3


@pytest.mark.parametrize("seed", range(10))
def test_few_groups_still_leave_every_class_in_every_split(seed):
    clips = [
        replace(clip, group=f"site {i % 4}") for i, clip in enumerate(clips_of({"a": 40, "b": 40}))
    ]
    split = corpora.assign(clips, 0.15, 0.15, seed)
    assert len({(clip.label, clip.split) for clip in split}) == 6


@pytest.mark.parametrize("seed", range(20))
def test_a_group_moved_for_one_class_is_not_taken_from_another_that_needs_it(seed):
    clips = [
        Clip(f"/{speaker}-{word}.wav", word, group=f"speaker {speaker}")
        for speaker, words in enumerate(itertools.combinations("abcdef", 2))
        for word in words
    ]
    split = corpora.assign(clips, 0.15, 0.15, seed)
    assert len({(clip.label, clip.split) for clip in split}) == 18


def test_the_splits_of_a_manifest_are_left_alone():
    clips = [
        replace(c, split="test" if i % 3 else "train") for i, c in enumerate(clips_of({"a": 9}))
    ]
    clips.append(Clip("/data/v.wav", "a", "valid"))
    assert corpora.assign(clips, 0.2, 0.2, 0) == clips


def test_a_missing_valid_split_is_carved_out_of_train_by_group():
    clips = [
        replace(clip, split="train" if i < 80 else "test", group=f"g{i % 10}")
        for i, clip in enumerate(clips_of({"a": 100}))
    ]
    split = corpora.assign(clips, 0.3, 0.2, 0)
    assert [c.path for c in split] == [c.path for c in clips]
    assert [c.split for c in split[80:]] == ["test"] * 20
    groups = {s: {c.group for c in split if c.split == s} for s in ("train", "valid")}
    assert groups["train"] and groups["valid"] and not groups["train"] & groups["valid"]


@pytest.mark.parametrize("absent", ["train", "test"])
def test_a_manifest_without_train_or_test_rows_is_refused(absent):
    other = "test" if absent == "train" else "train"
    with pytest.raises(ManifestError, match=f"No clip of the task is in {absent}; mark") as error:
        corpora.assign(clips_of({"a": 3}, split=other), 0.2, 0.2, 0)
    sentence(error)


def test_a_set_too_small_to_be_split_is_refused():
    one_group = clips_of({"a": 9, "b": 9}, group="site")
    unpaired = [*clips_of({"a": 1}, split="train"), Clip("/t.wav", "a", "test")]
    few = "too few, .* to leave some for"
    for clips, told in (
        (clips_of({"a": 1, "b": 1}), few),
        (one_group, "All 18 clips are of 'site', .* none are left for"),
        (unpaired, few),
    ):
        with pytest.raises(ManifestError, match=told) as error:
            corpora.assign(clips, 0.2, 0.2, 0)
        sentence(error)


def test_folds_are_tested_validated_and_trained_on_in_turn():
    clips = [Clip(f"/{i}.wav", "a", fold=str(i)) for i in (10, 2, 1, 9)]
    assert corpora.folds(clips) == ["1", "2", "9", "10"]
    in_turn = {c.fold: c.split for c in corpora.for_fold(clips, "2")}
    assert in_turn == {"2": "test", "9": "valid", "1": "train", "10": "train"}
    last = {c.fold: c.split for c in corpora.for_fold(clips, "10")}
    assert last == {"10": "test", "1": "valid", "2": "train", "9": "train"}


def test_a_cross_validation_that_cannot_be_is_refused():
    two = [Clip(f"/{i}.wav", "a", fold=str(i % 2)) for i in range(6)]
    some = [*two, Clip("/x.wav", "a")]
    none = [Clip(f"/{i}.wav", "a") for i in range(6)]
    for clips, told in (
        (two, "make at least three"),
        (some, "1 of 7 clips have no fold; fill in"),
        (none, "No clip has a fold: give a manifest"),
    ):
        with pytest.raises(ManifestError, match=told) as error:
            corpora.for_fold(clips, "0")
        sentence(error)
    three = [Clip(f"/{i}.wav", "a", fold=str(i % 3)) for i in range(6)]
    with pytest.raises(ManifestError, match="no fold '7'; choose one of 0, 1, 2"):
        corpora.for_fold(three, "7")


def test_the_label_map_is_the_sorted_classes_of_train():
    clips = [Clip("/1", "b", "train"), Clip("/2", "a", "train"), Clip("/3", "c", "test")]
    assert corpora.label_map(clips) == ("a", "b")


def test_a_task_that_cannot_be_learned_is_refused():
    good = [Clip("/1", "a", "train"), Clip("/2", "b", "train"), Clip("/3", "a", "test")]
    corpora.check_task(good)
    cases = {
        "1 of 4 clips of the task have no label, the first '/4'; label": Clip("/4", None, "train"),
        "class 'c' of valid has no clip in train; add": Clip("/4", "c", "valid"),
    }
    for told, clip in cases.items():
        with pytest.raises(ManifestError, match=told) as error:
            corpora.check_task([*good, clip])
        sentence(error)
    with pytest.raises(ManifestError, match=r"1 classes \(a\); a task needs two") as error:
        corpora.check_task([good[0], good[2]])
    sentence(error)


def test_a_corpus_of_a_labelled_set_is_its_train_clips_without_labels():
    clips = [Clip("/1", "a", "train", "g", "1", size=3), Clip("/2", "a", "test")]
    assert corpora.as_corpus(clips) == [Clip("/1", size=3)]
    with pytest.raises(ManifestError, match="in valid and test only") as error:
        corpora.as_corpus(clips[1:])
    sentence(error)



# The demo corpus


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory) -> tuple[Path, Path]:
    corpus, task = demo.write(tmp_path_factory.mktemp("demo"))
    return Path(corpus), Path(task)


def samples_of(clip: Clip) -> np.ndarray:
    with wave.open(clip.path, "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def digests_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_demo_corpus_is_a_task_and_other_unlabelled_clips(demo_set):
    corpus, task = (clips_in(str(path)) for path in demo_set)
    corpora.check_task(task)
    counts = Counter((clip.label, clip.split) for clip in task)
    assert len(corpora.label_map(task)) == 8
    assert all(counts[label, "train"] == 48 for label in corpora.label_map(task))
    assert all(counts[label, "valid"] == 12 for label in corpora.label_map(task))
    assert all(counts[label, "test"] == 24 for label in corpora.label_map(task))
    assert len(corpus) == 1200 and {clip.label for clip in corpus} == {None}
    digests = digests_of(demo_set[0].parent / "clips")
    assert len(digests) == len(set(digests.values())) == len(corpus) + len(task)


def test_the_demo_corpus_is_made_from_its_seed_alone(demo_set, tmp_path, monkeypatch):
    whole = digests_of(demo_set[0].parent / "clips")
    monkeypatch.setattr(demo, "CORPUS_SIZE", 40)
    monkeypatch.setattr(demo, "SPLIT_SIZES", {"train": 3, "test": 2})
    again, _ = demo.write(tmp_path)
    other, _ = demo.write(tmp_path, seed=1)
    part = digests_of(Path(again).parent / "clips")
    assert len(part) == 80 and part.items() <= whole.items()
    assert not set(part.values()) & set(digests_of(Path(other).parent / "clips").values())


def test_writing_the_demo_corpus_again_touches_nothing_and_leaves_nothing(demo_set):
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in demo_set[0].parents[1].rglob("*")}

    before = times()
    assert demo.write(demo_set[0].parents[1]) == tuple(map(str, demo_set))
    assert times() == before


def test_a_demo_corpus_that_fails_midway_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*_) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(demo, "_write_task", full_disk)
    monkeypatch.setattr(demo, "CORPUS_SIZE", 2)
    with pytest.raises(OSError, match="No space left"):
        demo.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def mean_spectrum(clip: Clip) -> np.ndarray:
    """Log power in 64 equal bands of the whole clip's average spectrum, and its level."""
    samples = samples_of(clip) / 32768
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::512] * np.hanning(1024)
    power = np.square(np.abs(np.fft.rfft(frames)))[:, :512].mean(axis=0)
    bands = np.log(power.reshape(64, 8).mean(axis=1) + 1e-9)
    return np.append(bands, np.log(np.square(samples).mean()))


def test_demo_classes_show_in_a_mean_spectrum_a_little_but_not_enough(demo_set):
    task = clips_in(str(demo_set[1]))
    features = np.array([mean_spectrum(clip) for clip in task])
    labels = np.array([clip.label for clip in task])
    split = np.array([clip.split for clip in task])
    test, scores = split == "test", []
    for draw in range(3):
        order = np.random.default_rng(draw).permutation(np.flatnonzero(split == "train"))
        few = np.concatenate([order[labels[order] == label][:5] for label in set(labels)])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        scores.append(model.fit(features[few], labels[few]).score(features[test], labels[test]))
    assert 1.3 / 8 < np.mean(scores) < 0.6


def test_the_direction_of_demo_glides_is_in_their_order_alone(demo_set):
    """The spectral centroid rises or falls as the name says; its average tells nothing."""
    task = clips_in(str(demo_set[1]))
    slopes, means = {}, {}
    for label in ("rising", "falling"):
        tracks = []
        for clip in (c for c in task if c.label == label):
            samples = samples_of(clip) / 32768
            frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256]
            power = np.square(np.abs(np.fft.rfft(frames * np.hanning(1024))))
            loud = power.sum(axis=1) > 0.2 * power.sum(axis=1).max()
            tracks.append(np.log2((power @ np.arange(513) / power.sum(axis=1))[loud]))
        slopes[label] = np.array([np.polyfit(np.arange(len(t)), t, 1)[0] for t in tracks])
        means[label] = np.array([t.mean() for t in tracks])
    assert np.mean(slopes["rising"] > 0) > 0.95 and np.mean(slopes["falling"] < 0) > 0.95
    spread = np.std([*means["rising"], *means["falling"]])
    assert abs(means["rising"].mean() - means["falling"].mean()) < 0.5 * spread


# Real manifests


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is absent")
def test_real_manifests_are_read_with_their_own_splits_and_folds():
    digits = clips_in(str(SHARED / "fsdd/digits.csv"))
    assert Counter(clip.split for clip in digits) == {"train": 2400, "valid": 300, "test": 300}
    assert corpora.label_map(digits) == tuple("0123456789")
    assert corpora.assign(digits, 0.1, 0.1, 0) == digits and all(c.size > 0 for c in digits)
    speakers = corpora.label_map(clips_in(str(SHARED / "arabic_commands/speakers.csv")))
    assert speakers[0] == "speaker_00000001" and len(speakers) == 30
    sounds = clips_in(str(SHARED / "esc10/sounds.csv"))
    assert corpora.folds(sounds) == ["1", "2", "3", "4", "5"]
    for fold in corpora.folds(sounds):
        corpora.check_task(corpora.for_fold(sounds, fold))
