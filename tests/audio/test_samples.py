"""Windows that are cut from clips."""

from __future__ import annotations

import numpy as np
import pytest

from unfused.audio.samples import crop_or_pad, even_windows


def test_a_short_clip_lies_in_the_middle_of_its_window():
    clip = np.array([1, 2, 3], np.int16)
    for offset in (0.0, 0.7):
        assert crop_or_pad(clip, 8, offset).tolist() == [0, 0, 1, 2, 3, 0, 0, 0]
    assert crop_or_pad(clip, 8, 0.0).dtype == np.int16
    assert crop_or_pad(clip, 3, 0.9).tolist() == [1, 2, 3]


def test_every_window_of_a_long_clip_is_as_likely_as_another():
    clip = np.arange(10, dtype=np.int16)
    begins = [int(crop_or_pad(clip, 7, offset)[0]) for offset in np.arange(400) / 400]
    assert np.bincount(begins).tolist() == [100, 100, 100, 100]


def test_the_last_window_ends_with_the_clip():
    clip = np.arange(100_001, dtype=np.int32)
    window = crop_or_pad(clip, 10, np.nextafter(1.0, 0.0))
    assert window.tolist() == list(range(99_991, 100_001))


def test_an_offset_of_one_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\); got 1"):
        crop_or_pad(np.zeros(4, np.int16), 2, 1.0)


def test_evenly_spaced_windows_go_from_end_to_end_and_one_is_in_the_middle():
    clip = np.arange(1000, dtype=np.int16)
    assert even_windows(clip, 100, 3)[:, 0].tolist() == [0, 450, 900]
    assert even_windows(clip, 100, 1)[:, 0].tolist() == [450]
    assert even_windows(clip[:4], 6, 2).tolist() == [[0, 0, 1, 2, 3, 0]] * 2
