"""Sessions below the folders of classes stay whole where a split can be drawn."""

from __future__ import annotations

from unfused import corpora
from unfused.corpora import Clip, sessions


def clips_of(sizes: dict[str, int], **fields) -> list[Clip]:
    """Clips of each `class/session`."""
    return [
        Clip(f"/data/{folder}/{i}.wav", *folder.split("/")[:1], name=f"{folder}/{i}.wav",
             group=folder.partition("/")[2] or None, **fields)
        for folder, count in sizes.items()
        for i in range(count)
    ]  # fmt: skip


def places(clips: list[Clip]) -> dict[tuple[str | None, str | None], set[str | None]]:
    return {(c.label, c.group): {o.split for o in clips if o.group == c.group} for c in clips}


def test_three_sessions_a_class_stay_whole_and_the_split_can_be_drawn():
    clips = clips_of({f"{label}/s{i}": 4 for label in ("dog", "cat") for i in range(3)})
    kept, notes = sessions.where_they_can(clips)
    assert kept == clips and notes == []
    drawn = corpora.assign(kept, 0.2, 0.2, 0)
    assert all(len(splits) == 1 for splits in places(drawn).values())
    assert {(c.label, c.split) for c in drawn} == {
        (label, split) for label in ("dog", "cat") for split in ("train", "valid", "test")
    }


def test_a_class_in_two_sessions_is_torn_apart_alone_and_that_is_said():
    clips = clips_of({"dog/s1": 9, "dog/s2": 9, **{f"cat/c{i}": 6 for i in range(3)}})
    kept, notes = sessions.where_they_can(clips)
    assert {c.group for c in kept if c.label == "dog"} == {None}
    assert {c.group for c in kept if c.label == "cat"} == {"c0", "c1", "c2"}
    assert notes == [
        "1 class lies in too few groups to be in every split with each of them whole ('dog' 2);"
        " these are torn apart, so the score may be too good."
    ]
    drawn = corpora.assign(kept, 0.2, 0.2, 0)
    assert len({(c.label, c.split) for c in drawn}) == 6


def test_a_folder_that_all_clips_lie_in_is_no_reason_to_refuse():
    clips = clips_of({"dog/wav": 8, "cat/wav": 8})
    kept, notes = sessions.where_they_can(clips)
    assert len(notes) == 1 and "('cat' 1, 'dog' 1)" in notes[0]
    assert len({(c.label, c.split) for c in corpora.assign(kept, 0.2, 0.2, 0)}) == 6


def test_clips_beside_the_sessions_count_as_one_each():
    clips = clips_of({"dog/s1": 5, "dog": 2, "cat": 5})
    assert sessions.where_they_can(clips) == (clips, [])


def test_a_class_of_two_clips_keeps_its_session():
    clips = clips_of({"wren/s1": 2, **{f"cat/c{i}": 6 for i in range(3)}})
    assert sessions.where_they_can(clips) == (clips, [])


def test_splits_that_are_there_need_sessions_for_a_missing_valid_alone():
    train = clips_of({"dog/s1": 4, "cat/s1": 4}, split="train")
    test = clips_of({"dog/s9": 4, "cat/s9": 4}, split="test")
    kept, notes = sessions.where_they_can(train + test)
    assert len(notes) == 1 and all(c.group is None for c in kept if c.split == "train")
    assert {c.split for c in corpora.assign(kept, 0.3, 0.3, 0)} == {"train", "valid", "test"}
    whole = [*train, *test, *clips_of({"dog/s5": 1}, split="valid")]
    assert sessions.where_they_can(whole) == (whole, [])


def test_clips_with_folds_are_left_alone():
    clips = clips_of({"dog/s1": 4, "cat/s1": 4}, fold="1")
    assert sessions.where_they_can(clips) == (clips, [])
