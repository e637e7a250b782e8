"""Windows that overlap, as segments with one label each."""

from __future__ import annotations

import numpy as np
import pytest

from unfused.config import ConfigError
from unfused.inference.timeline import Grid, TimelineConfig, segments

LEFT, RIGHT, NONE = [0.9, 0.1], [0.2, 0.8], [0.5, 0.5]


def windows(grid, length, *cuts):
    """Begin and end of every window of a recording that comes in stretches."""
    stretches = np.split(np.arange(length, dtype=np.int16), cuts)
    found = [window for some in grid.windows(stretches) for window in some]
    return [(int(one[0]), int(one[-1]) + 1) for one in found]


def test_windows_cover_a_recording_and_the_last_one_is_cut_by_its_end():
    grid = Grid.of(100, TimelineConfig(overlap=0.5), seconds=3.0)
    assert (grid.window, grid.hop) == (300, 150)
    every = [(0, 300), (150, 450), (300, 600), (450, 750), (600, 900)]
    assert windows(grid, 900) == every and windows(grid, 901) == [*every, (750, 901)]
    assert windows(grid, 200) == [(0, 200)] and windows(grid, 100) == [(0, 100)]


@pytest.mark.parametrize("length", [90, 299, 300, 301, 900, 1000, 1049])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_windows_are_the_same_however_a_recording_comes(length, overlap):
    grid = Grid.of(100, TimelineConfig(overlap=overlap), seconds=3.0)
    whole, rng = windows(grid, length), np.random.default_rng(length)
    assert whole[0][0] == 0 and whole[-1][1] == length
    for number in (1, 2, 7):
        assert windows(grid, length, *sorted(rng.integers(0, length, number))) == whole


def test_a_step_is_the_mean_of_the_windows_over_it():
    grid = Grid(window=200, hop=100)
    edges, steps = grid.on_steps(np.array([LEFT, LEFT, RIGHT]), 400)
    assert list(edges) == [0, 100, 200, 300, 400]
    np.testing.assert_allclose(steps, [LEFT, LEFT, np.mean([LEFT, RIGHT], 0), RIGHT])


def test_the_steps_of_a_recording_end_where_it_ends():
    grid = Grid(window=200, hop=100)
    edges, steps = grid.on_steps(np.array([LEFT] * len(windows(grid, 330))), 330)
    assert list(edges) == [0, 100, 200, 300, 330] and len(steps) == 4


def test_neighbours_of_one_label_are_one_segment_and_what_is_unsure_is_none():
    edges = np.array([0, 10, 20, 30, 40])
    steps = np.array([LEFT, [0.7, 0.3], NONE, RIGHT])
    found = list(segments(edges, steps, threshold=0.6, least=0))
    assert [one[:3] for one in found] == [(0, 20, 0), (30, 40, 1)]
    np.testing.assert_allclose(found[0][3], [0.8, 0.2])


def test_segments_that_are_too_short_are_left_out():
    edges, steps = np.array([0, 10, 40]), np.array([LEFT, RIGHT])
    assert [one[2] for one in segments(edges, steps, 0.5, least=20)] == [1]


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"overlap": 1.0}, {"threshold": 2}, {"min_seconds": -1}]
)
def test_what_makes_no_timeline_is_one_sentence(wrong):
    with pytest.raises(ConfigError, match="; got"):
        TimelineConfig(**wrong)
