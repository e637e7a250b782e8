"""What is scored of a classifier's predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from unfused.stages.evaluate import scores

TRUTH = np.repeat([0, 1], [9, 1])


def test_who_always_says_the_common_class_is_no_better_than_chance_in_balanced_accuracy():
    always, never = np.zeros(10, int), TRUTH
    found = scores(TRUTH, np.stack([always, never], 1), num_classes=2)
    assert found["accuracy"] == [0.9, 1.0]
    assert found["balanced_accuracy"] == [0.5, 1.0]
    assert found["confusion"][0] == [[9, 0], [1, 0]]


def test_a_class_that_the_split_lacks_has_no_recall_to_count():
    predicted = np.where(np.arange(10) < 3, 2, TRUTH)[:, None]
    found = scores(TRUTH, predicted, num_classes=3)
    assert found["balanced_accuracy"] == pytest.approx([(6 / 9 + 1) / 2])
    assert np.shape(found["confusion"]) == (1, 3, 3)


def test_the_scores_are_those_of_scikit_learn():
    drawn = np.random.default_rng(0)
    truth, predicted = drawn.integers(0, 5, 200), drawn.integers(0, 7, (200, 3))
    found, every = scores(truth, predicted, num_classes=7), {"labels": range(7)}
    mean = {"average": "macro", "zero_division": 0}
    for n, draw in enumerate(predicted.T):
        assert found["accuracy"][n] == metrics.accuracy_score(truth, draw)
        assert found["confusion"][n] == metrics.confusion_matrix(truth, draw, **every).tolist()
        recall = metrics.recall_score(truth, draw, labels=range(5), **mean)
        assert found["balanced_accuracy"][n] == pytest.approx(recall, abs=1e-12)
        f1 = metrics.f1_score(truth, draw, **every, **mean)
        assert found["macro_f1"][n] == pytest.approx(f1, abs=1e-12)
