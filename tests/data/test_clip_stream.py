"""Parts stream every clip once an epoch, in an order that a resumed run repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numbered_clips import numbered_clips

from conftest import write_part
from unfused import data
from unfused.audio.samples import Cut, crop_or_pad
from unfused.data import ClipCache, ClipStream

pytestmark = pytest.mark.slow


@pytest.fixture
def part(tmp_path):
    return write_part(tmp_path / "part", numbered_clips(29))


def _epochs(stream: ClipStream, start: int, stop: int) -> list[list[np.ndarray]]:
    return [[b["clip"].copy() for b in batches] for _, batches in stream.epochs(start, stop)]


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
        monkeypatch.setattr(data.stream, name, value)
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


def test_the_pass_before_the_first_epoch_has_every_clip_once(ray_cluster, part):
    stream = ClipStream(part, range(29), num_samples=100, num_steps=4, seed=3)
    (batches,) = _epochs(stream, -1, 0)
    assert sorted(np.concatenate(batches)) == list(range(29))


def test_a_window_lies_inside_its_own_clip(ray_cluster, part):
    stream = ClipStream(part, range(29), num_samples=100, num_steps=4, seed=3)
    lengths = [len(clip) for clip in numbered_clips(29)]
    for _, batches in stream.epochs(0, 1):
        for batch in batches:
            for samples, clip in zip(batch["samples"], batch["clip"], strict=True):
                assert set(np.unique(samples)) <= {0, clip + 1}
                assert (samples == clip + 1).sum() == min(100, lengths[clip])


def test_labelled_clips_are_cached_whole(ray_cluster, part):
    chosen = np.array([2, 11, 28])
    cache = ClipCache(part, chosen)
    for index in chosen:
        np.testing.assert_array_equal(cache[index], numbered_clips(29)[index])
    with pytest.raises(KeyError):
        cache[3]


def test_windows_of_kept_clips_are_those_of_the_shard(ray_cluster, part):
    chosen = np.array([0, 2, 11, 28])
    cache = ClipCache(part, chosen)
    kept, read = cache.even_windows(chosen, Cut(100)), data.windows_of(part, chosen, Cut(100))
    for mine, same in zip(kept, read, strict=True):
        np.testing.assert_array_equal(mine, same)
    assert kept.counts.max() > 1
    drawn = cache.random_windows(chosen, 100, np.random.default_rng(7))
    places = np.random.default_rng(7).random(len(chosen))
    for window, index, place in zip(drawn, chosen, places, strict=True):
        wave = numbered_clips(29)[index]
        begin = int(place * (max(0, len(wave) - 100) + 1))
        np.testing.assert_array_equal(window, crop_or_pad(wave, 100, begin))


@pytest.mark.parametrize("num_bytes", [2000, 10**6])
def test_blocks_of_windows_are_bounded_by_the_longest_clip_and_have_every_clip_once(
    ray_cluster, part, monkeypatch, num_bytes
):
    monkeypatch.setattr(data.blocks, "EVEN_BYTES", num_bytes)
    blocks = list(data.even_blocks(part, range(29), Cut(100), clips_per_block=8))
    assert np.concatenate([clip for clip, _ in blocks]).tolist() == list(range(29))
    wanted = data.windows_of(part, np.arange(29), Cut(100))
    for column in ("samples", "counts"):
        found = np.concatenate([getattr(windows, column) for _, windows in blocks])
        np.testing.assert_array_equal(found, getattr(wanted, column))
    assert max(windows.samples.nbytes for _, windows in blocks) <= num_bytes


def test_training_windows_of_clips_full_of_silence_fall_on_their_sound(ray_cluster, tmp_path):
    rng, clips = np.random.default_rng(0), []
    for number in range(6):
        clip = np.zeros(80000, np.int16)
        clip[12000 * number :][:8000] = rng.integers(-3000, 3000, 8000)
        clips.append(clip)
    part = write_part(tmp_path / "silent", clips)
    stream = ClipStream(part, range(6), num_samples=16000, num_steps=1, seed=3)
    kept = replace(stream, cache=ClipCache(part, np.arange(6)))
    for (_, one), (_, two) in zip(stream.epochs(0, 5), kept.epochs(0, 5), strict=True):
        for mine, same in zip(one, two, strict=True):
            assert (np.abs(mine["samples"]).max(1) > 1000).all()
            np.testing.assert_array_equal(mine["samples"], same["samples"])
