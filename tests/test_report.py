"""What a report computes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import normalized_mutual_info_score

from unfused.display import choice_lines
from unfused.report import mutual_information, paired

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


@pytest.mark.parametrize("count", [2, 5, 31])
def test_a_paired_difference_has_students_interval(count):
    ours, theirs = RNG.random(count), RNG.random(count)
    found = paired(list(ours), list(theirs))
    same = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found["mean"] == pytest.approx((ours - theirs).mean())
    assert found["interval"] == pytest.approx([same.low, same.high], abs=2e-4)
    assert paired([0.5], [0.4])["interval"] is None


def test_what_was_chosen_is_said_with_what_chose_it():
    summary = {
        "chosen": {"by_draw": ["mixture", "selftrain", "selftrain"]},
        "labels_per_draw": {"train": 50, "valid": 0},
        "chance": 0.1,
        "scored_on": "test",
        "num_scored": 300,
        "num_classes": 10,
        "trust": {
            "own": {"accuracy": 0.5, "weight": 0.2},
            "speech": {"accuracy": 0.97, "weight": 0.9},
            "alone": {"accuracy": None, "weight": 0.0},
        },
    }
    scored, chosen, trust = choice_lines(summary)
    assert scored == "scored     on 300 test clips of 10 classes, of which a guess gets 0.100 right"
    assert "selftrain in 2 of 3 draws, mixture in 1 of 3 draws" in chosen
    assert "50 labels of a draw" in chosen
    assert "speech (0.97; 0.90), own (0.50; 0.20) (cross-validated" in trust
    summary["trust"] |= {f"more{i}": {"accuracy": None, "weight": 0.1} for i in range(6)}
    assert ", more2 (-; 0.10), 3 more (cross-validated" in choice_lines(summary)[2]
    summary |= {"chosen": {"by_draw": ["probe"] * 3}, "trust": {}}
    assert choice_lines(summary)[1].startswith("chosen     probe: ")
    assert len(choice_lines(summary)) == 2
