"""The same recording under several names."""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from unfused.config import Config, ConfigError, RunOptions, override
from unfused.corpora import Clip, OverlapError, without_copies, without_repeats
from unfused.corpora.repeats import SPOT_BYTES, contents
from unfused.pipeline import Request, read_inputs
from unfused.store import Store


@pytest.fixture
def file(tmp_path):
    """`file(name, content)` is the listed clip of a new file."""

    def write(name: str, content: bytes, label: str | None = "a", **fields) -> Clip:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return Clip(str(path), label, size=len(content), name=name, **fields)

    return write


def once(clips: list[Clip], silent: tuple[Clip, ...] = (), **options):
    """Each recording once, where `silent` are none."""
    no_sound = {clip.path for clip in silent}
    return without_repeats(clips, lambda path: path not in no_sound, **options)


def noise(seed: int, size: int = 5000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def sound(seed: int, wave: np.ndarray | None = None) -> bytes:
    """A WAV of noise, or of `wave`."""
    data = io.BytesIO()
    noisy = np.random.default_rng(seed).uniform(-1, 1, 800)
    soundfile.write(data, noisy if wave is None else wave, 8000, format="WAV")
    return data.getvalue()


def test_copies_are_kept_once_and_counted(file):
    clips = [file(f"{i}.wav", noise(i // 10)) for i in range(20)]
    kept, notes = once(clips)
    assert kept == [clips[0], clips[10]]
    assert notes == ["18 clips are copies of another; each recording is kept once."]


def test_files_that_differ_at_their_ends_alone_are_no_copies(file):
    data = noise(0, 3 * SPOT_BYTES)
    clips = [file(f"{i}.wav", data[:-1] + bytes([i])) for i in range(3)]
    assert once(clips) == (clips, [])
    assert len(set(contents(clips).values())) == 3


def test_empty_and_missing_files_are_copies_of_nothing(file, tmp_path):
    clips = [file(f"{i}.wav", b"") for i in range(3)]
    clips += [Clip(str(tmp_path / f"gone{i}.wav"), "a") for i in range(2)]
    assert once(clips) == (clips, [])


def test_copies_with_different_labels_are_left_out_all_of_them(file):
    dog, rain, same = (file(f"{i}.wav", noise(0), ("dog", "rain", "rain")[i]) for i in range(3))
    other = file("other.wav", noise(1), "dog")
    kept, (note,) = once([dog, rain, same, other])
    assert kept == [other]
    assert note.startswith("3 clips are copies with different labels and left out, as ")
    assert "(dog)" in note and "(rain)" in note


def test_stretches_of_a_recording_are_no_copies_but_equal_ones_of_copies_are(file):
    one, copy = file("a.wav", noise(0)), file("b.wav", noise(0))
    clips = [replace(one, start=s, end=s + 1) for s in (0.0, 1.0)]
    kept, _ = once([*clips, replace(copy, start=1.0, end=2.0)])
    assert kept == clips


def test_stretches_of_equal_recordings_are_one_group(file):
    one, copy = file("a.wav", noise(0), group="a"), file("b.wav", noise(0), group="b")
    clips = [replace(one, start=0.0, end=1.0), replace(copy, start=2.0, end=3.0)]
    kept, notes = once(clips)
    assert [clip.group for clip in kept] == ["a", "a"] and notes == []


def test_a_manifest_that_learns_and_scores_one_recording_is_refused(file):
    clips = [
        file("a.wav", noise(0), split="train"), file("b.wav", noise(0), split="test"),
        file("c.wav", noise(1), split="train"), file("d.wav", noise(1), split="train"),
    ]  # fmt: skip
    with pytest.raises(OverlapError, match=r"1 recording is in train .*a.wav' and .*b.wav'"):
        once(clips)
    kept, _ = once(clips, allow_overlap=True)
    assert kept == clips[:3]


@pytest.mark.parametrize(
    "train, held_out",
    [((0.0, 3.0), (0.01, 3.0)), ((None, None), (0.0, 3.0)), ((0.0, 6.0), (None, None)),
     ((1.0, 9.0), (2.0, 4.0)), ((4.0, None), (5.0, 6.0))],
)  # fmt: skip
def test_stretches_that_are_mostly_one_sound_are_not_learned_and_scored(file, train, held_out):
    one = file("a.wav", noise(1), split="train", start=train[0], end=train[1])
    other = file("b.wav", noise(1), split="test", start=held_out[0], end=held_out[1])
    with pytest.raises(OverlapError, match=r"the first 'a\.wav' and 'b\.wav'"):
        once([other, one])
    assert len(once([other, one], allow_overlap=True)[0]) == 2
    assert len(once([other, one], silent=(one, other))[0]) == 2


def test_stretches_that_touch_are_different_sounds(file):
    some = [
        file("a.wav", noise(1), split=split, start=start, end=end)
        for split, start, end in (("train", 0.0, 3.0), ("test", 3.0, 6.0), ("train", 5.0, 8.0))
    ]
    assert len(once(some)[0]) == 3


def test_a_whole_recording_is_in_one_group_with_stretches_of_its_copies(file):
    whole = file("a.wav", noise(1))
    stretch = file("b.wav", noise(1), start=0.0, end=3.0, group="b")
    kept, _ = once([whole, stretch, file("c.wav", noise(2))])
    assert [clip.group for clip in kept] == ["b", "b", None]


def test_what_has_no_sound_is_a_copy_of_nothing(file):
    page = [
        file("a.wav", noise(0), split="train"), file("b.wav", noise(0), split="test"),
        file("c.wav", noise(0), "b", split="train"),
    ]  # fmt: skip
    assert once(page, silent=tuple(page)) == (page, [])


def test_what_is_held_out_is_no_part_of_a_corpus_under_any_name(file):
    corpus = [file(f"{i}.wav", noise(i), None) for i in range(4)]
    held_out = [file("elsewhere/x.wav", noise(2)), corpus[0]]
    assert without_copies(corpus, held_out) == [corpus[1], corpus[3]]


@pytest.fixture
def recordings(tmp_path, file):
    """A folder of recordings, of which every third is labelled in a manifest beside it."""
    for i in range(60):
        file(f"recordings/{i}.wav", noise(i))
    rows = [f"recordings/{i}.wav,{'ab'[i % 2]}" for i in range(0, 60, 3)]
    (tmp_path / "labelled.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return tmp_path


def inputs(task, corpus=None, **settings):
    config = override(Config(), {name.replace("__", "."): v for name, v in settings.items()})
    request = Request(config, RunOptions(), corpus and str(corpus), str(task))
    return read_inputs(request, Store.at(str(os.devnull) + ".store"))


def test_labelled_clips_may_lie_among_the_recordings(recordings):
    found = inputs(recordings / "labelled.csv", recordings / "recordings")
    (task,) = found.tasks
    held_out = {clip.path for clip in task.clips if clip.split != "train"}
    assert len(task.clips) == 20 and len(held_out) == 6
    assert {clip.path for clip in found.corpus}.isdisjoint(held_out)
    assert len(found.corpus) == 54
    assert found.notes == (
        "6 clips of the corpus are held out by the task, and left out of the corpus.",
    )
    allowed = inputs(
        recordings / "labelled.csv", recordings / "recordings", data__allow_overlap="true"
    )
    assert len(allowed.corpus) == 60 and not allowed.notes


def test_one_clip_under_ten_names_is_on_one_side(tmp_path, file):
    for i in range(30):
        file(f"task/{'ab'[i % 2]}/{i}.wav", sound(i))
    for i in range(10):
        file(f"task/a/copy{i}.wav", sound(0))
    found = inputs(tmp_path / "task")
    assert Counter(clip.label for clip in found.tasks[0].clips) == {"a": 15, "b": 15}
    assert found.notes == ("10 clips are copies of another; each recording is kept once.",)


def test_a_task_of_nothing_but_contradictions_is_refused_in_a_sentence(tmp_path, file):
    for i in range(4):
        file(f"task/{'ab'[i % 2]}/{i // 2}.wav", sound(i // 2))
    told = r"^No labelled clip of '.*task' is left: 4 clips are copies with different labels .*;"
    with pytest.raises(ConfigError, match=told):
        inputs(tmp_path / "task")


def test_clips_without_a_label_join_the_corpus(tmp_path, file):
    rows = []
    for i in range(200):
        file(f"{i}.wav", noise(i))
        rows.append(f"{i}.wav,{'ab'[i % 2] if i < 50 else ''}")
    (tmp_path / "task.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    found = inputs(tmp_path / "task.csv")
    (task,) = found.tasks
    assert len(task.clips) == 50
    train = sum(clip.split == "train" for clip in task.clips)
    assert len(found.corpus) == 150 + train
    assert all(clip.label is None and clip.split is None for clip in found.corpus)


def test_dead_files_count_for_no_class_and_no_split(tmp_path, file):
    for i in range(30):
        file(f"task/{'ab'[i % 2]}/{i}.wav", noise(i))
    for i in range(12):
        file(f"task/dead/{i}.wav", b"")
    (task,) = inputs(tmp_path / "task").tasks
    assert {clip.label for clip in task.clips} == {"a", "b"}
    assert len(task.dead) == 12 and {clip.split for clip in task.dead} == {"train"}


def test_a_page_that_was_saved_for_a_recording_may_be_on_both_sides(tmp_path, file):
    rows = []
    for i, split in enumerate(("train", "test") * 10):
        file(f"{i}.wav", noise(i) if i > 1 else b"<html>404 not found</html>")
        rows.append(f"{i}.wav,{'ab'[i // 2 % 2]},{split}")
    (tmp_path / "task.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    found = inputs(tmp_path / "task.csv")
    carved = "The split has no valid: 3 of the 10 clips of train are taken for it."
    assert len(found.tasks[0].clips) == 20 and found.notes == (carved,)


@pytest.mark.parametrize("value", [0.0, 0.37])
def test_muted_recordings_of_one_length_are_no_copies(tmp_path, file, value):
    """Whatever split and class they are in, nothing is learned of them that could be known."""
    muted = sound(0, np.full(8000, value))
    rows = []
    for i, split in enumerate(("train", "valid", "test") * 8):
        file(f"{i}.wav", sound(i) if i > 5 else muted)
        rows.append(f"{i}.wav,{'ab'[i // 3 % 2]},{split}")
    (tmp_path / "task.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    found = inputs(tmp_path / "task.csv")
    assert len(found.tasks[0].clips) == 24 and found.notes == ()


def test_headers_without_samples_count_for_no_split(tmp_path, file):
    for i in range(30):
        file(f"task/{'ab'[i % 2]}/{i}.wav", sound(i))
    for i in range(6):
        file(f"task/{'ab'[i % 2]}/dead{i}.wav", sound(0, np.zeros(0)))
    found = inputs(tmp_path / "task")
    assert len(found.tasks[0].clips) == 30 and len(found.tasks[0].dead) == 6
    assert found.notes == ()


def test_an_overlap_that_is_accepted_is_told(file):
    clips = [file("a.wav", noise(0), split="train"), file("b.wav", noise(0), split="test")]
    kept, (note,) = once(clips, allow_overlap=True)
    assert kept == clips and note.startswith("1 recording is in train as well as in valid or test")
