"""Windows that are cut from clips cover them, and leave silence out."""

from __future__ import annotations

import numpy as np
import pytest

from unfused.audio.samples import (
    FRAME,
    MAX_WINDOWS,
    ONE_WINDOW,
    Cut,
    Windows,
    are_sound,
    crop_or_pad,
    envelope,
    random_begin,
)

RATE = 16000


def noise(seconds: float, level: float = 3000.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * RATE))).round().astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    """As a recorder writes it: the last bit flickers."""
    return np.random.default_rng(1).integers(-1, 2, round(seconds * RATE)).astype(np.int16)


def begins(wave: np.ndarray, num_samples: int, count: int = 400) -> np.ndarray:
    shares, power = np.arange(count) / count, envelope(wave)
    return np.array([random_begin(len(wave), num_samples, s, lambda: power) for s in shares])


def test_a_short_clip_lies_in_the_middle_of_its_window():
    clip = np.array([1, 2, 3], np.int16)
    for begin in (0, 7):
        assert crop_or_pad(clip, 8, begin).tolist() == [0, 0, 1, 2, 3, 0, 0, 0]
    assert crop_or_pad(clip, 8, 0).dtype == np.int16
    assert crop_or_pad(clip, 3, 0).tolist() == [1, 2, 3]


def test_every_window_of_a_clip_that_sounds_is_as_likely_as_another():
    assert np.bincount(begins(np.arange(10, dtype=np.int16), 7)).tolist() == [100] * 4
    long, places = noise(1.0), 3 * FRAME + 1
    found = begins(long, len(long) - places + 1, count=4 * places)
    assert set(np.bincount(found)) <= {3, 4, 5} and len(np.bincount(found)) == places


def test_the_last_window_ends_with_the_clip():
    clip = np.arange(100_001, dtype=np.int32)
    begin = random_begin(len(clip), 10, float(np.nextafter(1.0, 0.0)), lambda: envelope(clip))
    assert crop_or_pad(clip, 10, begin).tolist() == list(range(99_991, 100_001))


def test_a_share_of_one_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\); got 1"):
        random_begin(4, 2, 1.0, lambda: np.zeros(0))


def test_windows_go_from_end_to_end_and_one_is_in_the_middle():
    clip = np.arange(1000, dtype=np.int16)
    assert Cut(100, 3).windows(clip)[:, 0].tolist() == [0, 450, 900]
    assert Cut(100, 1).windows(clip)[:, 0].tolist() == [450]
    assert Cut(6, 2).windows(clip[:4]).tolist() == [[0, 0, 1, 2, 3, 0]]


@pytest.mark.parametrize("length", [101, 126, 199, 200, 201, 999, 1000, 3200])
def test_as_many_windows_as_cover_the_clip_and_no_more(length):
    clip = np.arange(length, dtype=np.int16)
    heard = np.unique(Cut(100).windows(clip))
    if length <= 100 * ONE_WINDOW:
        assert len(heard) == 100
    else:
        assert heard.tolist() == clip.tolist()
        assert len(Cut(100).windows(clip)) == -(-length // 100)


def test_a_long_recording_is_looked_at_in_a_bounded_number_of_windows_all_over_it():
    clip = np.repeat(np.arange(5000, dtype=np.int16) % 77, 100)
    cut = Cut(800)
    windows = cut.windows(clip)
    assert len(windows) == cut.count(len(clip)) == MAX_WINDOWS
    assert np.array_equal(windows[0], clip[:800]) and np.array_equal(windows[-1], clip[-800:])


def test_each_clip_has_windows_as_it_is_long():
    cut = Cut(RATE)
    windows = Windows.of([cut.windows(noise(seconds)) for seconds in (0.4, 1.1, 2.5, 5.0)])
    assert windows.counts.tolist() == [1, 1, 3, 5]
    assert windows.samples.shape == (10, RATE)


@pytest.mark.parametrize("num_crops", ["auto", 9])
@pytest.mark.parametrize("place", [0.0, 2.2, 4.5])
def test_windows_without_the_sound_of_a_clip_are_left_out(num_crops, place):
    clip = silence(5.0)
    clip[round(place * RATE) : round((place + 0.5) * RATE)] += noise(0.5)
    windows = Cut(RATE, num_crops).windows(clip)
    assert 1 <= len(windows) <= 3
    assert (np.abs(windows).max(1) > 1000).all()


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 20.0, 3000.0])
def test_a_clip_that_is_alike_throughout_keeps_all_its_windows_however_quiet(level):
    clip = noise(5.0, level)
    assert len(Cut(RATE).windows(clip)) == 5
    assert len(np.unique(begins(clip, RATE))) == 400


def test_a_steady_offset_of_the_recorder_is_no_sound():
    clip = silence(5.0) + np.int16(900)
    clip[:8000] += noise(0.5)
    assert len(Cut(RATE).windows(clip)) == 1
    assert begins(clip, RATE).max() < 8000


def test_forty_decibels_below_the_loudest_is_silence_and_thirty_are_not():
    loud, there, gone = 1e6, 1e3, 1e1
    assert are_sound(np.array([there, loud, gone])).tolist() == [True, True, False]
    assert are_sound(np.array([0.1, 30.0])).tolist() == [False, True]


@pytest.mark.parametrize("place", [0.0, 2.0, 4.5])
def test_random_windows_fall_on_sound_wherever_it_is(place):
    clip = silence(5.0)
    clip[round(place * RATE) : round((place + 0.5) * RATE)] += noise(0.5)
    found = begins(clip, RATE)
    assert all(np.abs(clip[begin : begin + RATE]).max() > 1000 for begin in found)
    assert len(np.unique(found)) > 5 and found.max() <= len(clip) - RATE
