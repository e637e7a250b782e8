"""What is scored of a classifier's predictions."""

from __future__ import annotations

import numpy as np
import pytest

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
