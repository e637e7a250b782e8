"""Shards stream every clip once an epoch, in an order that a resumed run repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import write_part
from unfused import shards
from unfused.audio.samples import crop_or_pad
from unfused.shards import ClipCache, ClipStream


def _clips(count: int, seed: int = 0) -> list[np.ndarray]:
    """Clip i is full of the value i + 1, so that a window tells where it is from."""
    rng = np.random.default_rng(seed)
    return [np.full(rng.integers(50, 400), i + 1, np.int16) for i in range(count)]


@pytest.fixture
def part(tmp_path):
    return write_part(tmp_path / "part", _clips(29))


def _epochs(stream: ClipStream, start: int, stop: int) -> list[list[np.ndarray]]:
    return [[b["clip"].copy() for b in batches] for _, batches in stream.epochs(start, stop)]


def test_a_part_reads_back_what_was_written(part):
    pieces = shards.slices(part, range(29), 5)
    read = [pair for piece in pieces for pair in shards.read_clips(piece)]
    assert [index for index, _ in read] == list(range(29))
    for (_, samples), written in zip(read, _clips(29), strict=True):
        np.testing.assert_array_equal(samples, written)


def test_clips_larger_than_a_row_group_read_back_too(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", 300)
    part = write_part(tmp_path / "part", _clips(29))
    for piece in shards.slices(part, range(2, 27), 5):
        for index, samples in shards.read_clips(piece):
            np.testing.assert_array_equal(samples, _clips(29)[index])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_workers_share_out_all_clips_evenly(part, world):
    rows = [shards.rank_rows(29, rank, world) for rank in range(world)]
    assert [i for some in rows for i in some] == list(range(29))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    covered = [
        piece.first + i for some in rows for piece in shards.slices(part, some, 4)
        for i in range(piece.rows)
    ]
    assert covered == list(range(29))


def test_an_epoch_has_every_clip_once_in_even_batches(ray_cluster, part):
    stream = ClipStream(part, range(29), num_samples=100, num_steps=4, seed=3)
    (batches,) = _epochs(stream, 0, 1)
    assert sorted(np.concatenate(batches)) == list(range(29))
    assert {len(batch) for batch in batches} == {7, 8}


def test_epochs_differ_and_a_resumed_stream_repeats_them(ray_cluster, part):
    stream = ClipStream(part, range(29), num_samples=100, num_steps=4, seed=3)
    whole = _epochs(stream, 0, 3)
    flat = [np.concatenate(epoch).tolist() for epoch in whole]
    assert flat[0] != flat[1] != flat[2]
    resumed = [np.concatenate(epoch).tolist() for epoch in _epochs(stream, 1, 3)]
    assert resumed == flat[1:]


def test_kept_clips_give_the_batches_that_streamed_ones_do(ray_cluster, part):
    streamed = ClipStream(part, range(3, 29), num_samples=100, num_steps=4, seed=3)
    kept = replace(streamed, cache=ClipCache(part, np.arange(3, 29)))
    for (_, one), (_, two) in zip(streamed.epochs(0, 2), kept.epochs(0, 2), strict=True):
        for mine, same in zip(one, two, strict=True):
            for column in ("samples", "clip"):
                np.testing.assert_array_equal(mine[column], same[column])


def test_a_stream_of_many_blocks_and_shuffle_windows_is_whole_kept_or_not_and_resumes(
    ray_cluster, part, monkeypatch
):
    sizes = {"BLOCK_BYTES": 800, "WINDOW_BYTES": 1200, "MIX_ROWS": 3, "MAX_BLOCKS": 8}
    for name, value in sizes.items():
        monkeypatch.setattr(shards, name, value)
    streamed = ClipStream(part, range(29), num_samples=100, num_steps=4, seed=3)
    whole = _epochs(streamed, 0, 3)
    for batches in whole:
        assert sorted(np.concatenate(batches)) == list(range(29))
        assert {len(batch) for batch in batches} == {7, 8}
    kept = replace(streamed, cache=ClipCache(part, np.arange(29)))
    for again, start in ((kept, 0), (streamed, 1)):
        pairs = zip(again.epochs(start, 3), streamed.epochs(start, 3), strict=True)
        for (epoch, one), (_, two) in pairs:
            for mine, same, clips in zip(one, two, whole[epoch], strict=True):
                np.testing.assert_array_equal(mine["samples"], same["samples"])
                np.testing.assert_array_equal(mine["clip"], clips)


def test_only_a_small_share_is_kept(part, monkeypatch):
    bytes_ = 2 * sum(map(len, _clips(29)))
    monkeypatch.setattr(shards, "KEPT_BYTES", bytes_)
    assert shards.may_be_kept(part, range(29))
    monkeypatch.setattr(shards, "KEPT_BYTES", bytes_ - 1)
    assert not shards.may_be_kept(part, range(29))
    assert shards.may_be_kept(part, range(14))


def test_the_pass_before_the_first_epoch_has_every_clip_once(ray_cluster, part):
    stream = ClipStream(part, range(29), num_samples=100, num_steps=4, seed=3)
    (batches,) = _epochs(stream, -1, 0)
    assert sorted(np.concatenate(batches)) == list(range(29))


def test_a_window_lies_inside_its_own_clip(ray_cluster, part):
    stream = ClipStream(part, range(29), num_samples=100, num_steps=4, seed=3)
    lengths = [len(clip) for clip in _clips(29)]
    for _, batches in stream.epochs(0, 1):
        for batch in batches:
            for samples, clip in zip(batch["samples"], batch["clip"], strict=True):
                assert set(np.unique(samples)) <= {0, clip + 1}
                assert (samples == clip + 1).sum() == min(100, lengths[clip])


def test_even_windows_cover_a_long_clip_from_end_to_end(tmp_path):
    clip = np.arange(1000, dtype=np.int16)
    part = write_part(tmp_path / "long", [clip])
    (piece,) = shards.slices(part, range(1), 8)
    three = shards.even_windows(piece, 100, 3)["samples"][0]
    assert [window[0] for window in three] == [0, 450, 900]
    (one,) = shards.even_windows(piece, 100, 1)["samples"][0]
    assert one[0] == 450


def test_labelled_clips_are_cached_whole(ray_cluster, part):
    chosen = np.array([2, 11, 28])
    cache = ClipCache(part, chosen)
    for index in chosen:
        np.testing.assert_array_equal(cache[index], _clips(29)[index])
    with pytest.raises(KeyError):
        cache[3]


def test_windows_of_kept_clips_are_those_of_the_shard(ray_cluster, part):
    chosen = np.array([0, 2, 11, 28])
    cache = ClipCache(part, chosen)
    even = cache.even_windows(chosen, 100, 3)
    np.testing.assert_array_equal(even, shards.windows_of(part, chosen, 100, 3))
    drawn = cache.random_windows(chosen, 100, np.random.default_rng(7))
    places = np.random.default_rng(7).random(len(chosen))
    for window, index, place in zip(drawn, chosen, places, strict=True):
        np.testing.assert_array_equal(window, crop_or_pad(_clips(29)[index], 100, place))


def test_writing_a_shard_keeps_no_more_than_a_row_group(tmp_path):
    import pyarrow.parquet as pq

    long = [np.zeros(6_000_000, np.int16) for _ in range(8)]
    write_part(tmp_path / "big", long)
    file = pq.ParquetFile(tmp_path / "big" / "part-00000.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(sizes) * long[0].nbytes <= shards.ROW_GROUP_BYTES


def test_windows_of_a_few_clips_are_those_of_a_whole_pass(tmp_path):
    rng = np.random.default_rng(0)
    clips = [rng.integers(-9, 9, rng.integers(50, 300), dtype=np.int16) for _ in range(200)]
    part = write_part(tmp_path / "part", clips, per_shard=90)
    pieces = shards.slices(part, range(200), 64)
    whole = np.concatenate([shards.even_windows(p, 100, 3)["samples"] for p in pieces])
    for few in (np.array([5]), np.array([0, 63, 64, 89, 90, 199]), np.arange(0, 200, 7)):
        assert np.array_equal(shards.windows_of(part, few, 100, 3), whole[few])
