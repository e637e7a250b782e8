"""What a report computes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from unfused.report import mutual_information

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RNG.integers(0, 5, 300), RNG.integers(0, 9, 300)),
        (np.repeat([3, 1, 2], 50), np.repeat([0, 7, 7], 50)),
        (np.arange(7), np.arange(7)[::-1]),
        (np.zeros(5, int), np.arange(5)),
        (np.zeros(5, int), np.ones(5, int)),
    ],
)
def test_mutual_information_is_scikit_learns(one, other):
    assert mutual_information(one, other) == pytest.approx(
        normalized_mutual_info_score(one, other), abs=1e-12
    )
