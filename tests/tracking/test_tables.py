"""What the chosen classifier says of the clips, as a person reads it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from unfused.tracking.tables import Said

RNG = np.random.default_rng(0)


def some(num_classes: int = 4, num_clips: int = 60) -> Said:
    truth = RNG.integers(0, num_classes - 1, num_clips)
    guess = RNG.integers(0, num_classes, num_clips)
    predicted = np.where(RNG.random(num_clips) < 0.6, truth, guess)
    classes = [f"class {number}" for number in range(num_classes)]
    sure, paths = RNG.random(num_clips), [f"{number}.wav" for number in range(num_clips)]
    return Said("mixture", "test", classes, truth, predicted, sure, paths)


def test_the_table_of_classes_is_scikit_learns_also_for_a_class_without_clips():
    said = some()
    every = range(len(said.classes))
    scores = precision_recall_fscore_support(
        said.truth, said.predicted, labels=every, zero_division=0
    )
    table = said.per_class()
    for name, column in zip(("precision", "recall", "f1", "support"), scores, strict=True):
        assert table[name] == pytest.approx(column, abs=1e-4)
    assert table["support"][-1] == 0
    assert (said.confusion == confusion_matrix(said.truth, said.predicted, labels=every)).all()


def test_every_clip_is_told_with_its_label_and_what_is_predicted():
    said = some()
    table = said.predictions()
    assert table["path"][7] == "7.wav"
    assert table["label"][7] == said.classes[said.truth[7]]
    assert sum(table["right"]) == np.trace(said.confusion)


@pytest.mark.parametrize("num_classes", [2, 60])
def test_the_confusion_picture_is_a_picture(num_classes):
    image = imread(io.BytesIO(some(num_classes, 300).picture()))
    assert min(image.shape[:2]) > 300 and image[..., :3].std() > 0
