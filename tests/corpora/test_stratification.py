"""A split that is drawn gives every class its share, and a manifest's own is left as it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from unfused import corpora
from unfused.corpora.clip import Clip
from unfused.corpora.counts import half_width
from unfused.corpora.units import apportioned


def clips_of(classes: dict[str, int], **fields) -> list[Clip]:
    names = [f"{label}/{i}.wav" for label, count in classes.items() for i in range(count)]
    return [Clip(f"/data/{name}", name.partition("/")[0], name=name, **fields) for name in names]


def shares(clips: list[Clip], *asked: float, seed: int = 0) -> Counter:
    drawn = corpora.assign(clips, *(asked or (0.15, 0.15)), seed)
    return Counter((clip.label, clip.split) for clip in drawn)


@pytest.mark.parametrize("seed", range(10))
def test_even_classes_have_as_many_clips_each_in_every_split(seed):
    found = shares(clips_of({"a": 20, "b": 20, "c": 20}), seed=seed)
    for label in "abc":
        assert [found[label, split] for split in ("train", "valid", "test")] == [14, 3, 3]


@pytest.mark.parametrize("seed", range(10))
def test_every_class_has_its_share_by_largest_remainder(seed):
    sizes = {f"c{i}": int(n) for i, n in enumerate(np.random.default_rng(seed).integers(3, 90, 9))}
    found = shares(clips_of(sizes), 0.1, 0.25, seed=seed)
    for label, size in sizes.items():
        wanted = apportioned(size, {"test": 0.25, "valid": 0.1, "train": 0.65})
        assert {split: found[label, split] for split in wanted} == wanted


@pytest.mark.parametrize(
    ("total", "found"), [(20, (3, 3, 14)), (10, (2, 1, 7)), (7, (1, 1, 5)), (3, (1, 1, 1))]
)
def test_remainders_go_to_the_largest_and_nobody_is_left_with_nothing(total, found):
    shares = {"test": 0.15, "valid": 0.15, "train": 0.7}
    assert tuple(apportioned(total, shares).values()) == found


@pytest.mark.parametrize("seed", range(5))
def test_groups_come_as_close_to_the_shares_as_moving_one_of_them_can(seed):
    rng = np.random.default_rng(seed)
    clips = [
        replace(clip, group=f"speaker {rng.integers(40)}")
        for clip in clips_of({"a": 200, "b": 120, "c": 80})
    ]
    drawn = corpora.assign(clips, 0.15, 0.15, seed)
    places = {clip.group: {c.split for c in drawn if c.group == clip.group} for clip in drawn}
    assert all(len(splits) == 1 for splits in places.values())
    found = Counter((clip.label, clip.split) for clip in drawn)
    for label, size in {"a": 200, "b": 120, "c": 80}.items():
        for split in ("valid", "test"):
            assert found[label, split] / size == pytest.approx(0.15, abs=0.06)


def test_a_split_that_the_manifest_has_is_left_as_it_was_drawn_before():
    clips = [
        Clip(f"/data/{label}/{i}.wav", label, "train" if i < 20 else "test", group)
        for label, groups in (("a", 0), ("b", 0), ("c", 7))
        for i in range(30)
        for group in [f"g{i % groups}" if groups else None]
    ]
    drawn = corpora.assign(clips, 0.2, 0.2, 3)
    valid = [c.path[6:-4] for c in drawn if c.split == "valid"]
    kept = "a/3 a/11 a/14 a/15 b/0 b/3 b/9 b/14 c/3 c/4 c/10 c/11 c/17 c/18"
    assert valid == kept.split()
    assert corpora.assign(drawn, 0.3, 0.3, 5) == drawn


def test_the_clips_of_every_split_and_class_fit_few_lines():
    drawn = corpora.assign(clips_of({"a": 20, "b": 20, "c": 7}), 0.15, 0.15, 0)
    assert corpora.count_lines([drawn]) == [
        "clips      train 33, valid 7, test 7; 3 classes:",
        "           a 14/3/3, b 14/3/3, c 5/1/1",
    ]
    many = corpora.assign(clips_of({f"class {i}": 10 + i for i in range(300)}), 0.15, 0.15, 0)
    lines = corpora.count_lines([many])
    assert len(lines) <= 5 and all(len(line) <= 100 for line in lines)
    assert lines[-1].endswith("and 291 more of up to 216/46/47")


def test_folds_are_counted_once():
    clips = [replace(c, fold=c.name[-5]) for c in clips_of({"a": 30, "b": 30})]
    tasks = [corpora.for_fold(clips, fold) for fold in corpora.folds(clips)]
    assert corpora.count_lines(tasks) == [
        "clips      60 in 10 folds, each tested on once; 2 classes:",
        "           a 30, b 30",
    ]
    assert corpora.doubt(tasks, "test") == ""


def test_few_test_clips_are_a_warning_with_the_interval_and_the_remedy():
    drawn = corpora.assign(clips_of({"a": 20, "b": 20, "c": 20}), 0.15, 0.15, 0)
    told = corpora.doubt([drawn], "test")
    assert "9 test clips (3 of 'a')" in told and "up to 0.27 either way" in told
    assert told.endswith("test on all of them: --folds, with a manifest's column `fold`.")
    folded = [replace(clip, fold=clip.name[-5]) for clip in drawn]
    assert corpora.doubt([folded], "test").endswith("--folds tests on all 60 labelled clips.")
    many = corpora.assign(clips_of({"a": 80, "b": 80}), 0.15, 0.15, 0)
    assert corpora.doubt([many], "test") == ""


@pytest.mark.parametrize(("count", "accuracy"), [(9, 0.5), (30, 0.8), (300, 0.97)])
def test_the_interval_is_wilsons(count, accuracy):
    from scipy.stats import binomtest

    # SciPy has it for whole successes.
    right = round(count * accuracy)
    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert half_width(count, right / count) == pytest.approx((interval.high - interval.low) / 2)
