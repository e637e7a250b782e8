"""Draws of the labels are the same for all arms, and cost what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unfused.config import ConfigError, FinetuneConfig
from unfused.models.heads import LinearClassifier
from unfused.stages.finetune import Standardize, check, draw_labels, encoder_epochs

LABELS = np.repeat([0, 1, 2], [40, 10, 5])


def test_a_draw_has_the_asked_number_of_every_class():
    config = FinetuneConfig(labels_per_class=5)
    chosen = draw_labels(LABELS, config, 0)
    assert np.bincount(LABELS[chosen]).tolist() == [5, 5, 5]
    assert len(set(chosen)) == 15 and list(chosen) == sorted(chosen)


def test_a_fraction_is_taken_of_every_class():
    chosen = draw_labels(LABELS, FinetuneConfig(label_fraction=0.2), 0)
    assert np.bincount(LABELS[chosen]).tolist() == [8, 2, 1]


def test_without_a_budget_all_labels_are_used():
    assert draw_labels(LABELS, FinetuneConfig(), 0).tolist() == list(range(55))


def test_draws_differ_by_repeat_and_seed_and_by_nothing_else():
    few = FinetuneConfig(labels_per_class=3)
    first = draw_labels(LABELS, few, 0).tolist()
    other_knobs = FinetuneConfig(labels_per_class=3, epochs=7, mode="full")
    assert draw_labels(LABELS, other_knobs, 0).tolist() == first
    assert draw_labels(LABELS, few, 1).tolist() != first
    reseeded = few.model_copy(update={"seed": 1})
    assert draw_labels(LABELS, reseeded, 0).tolist() != first


def test_a_larger_budget_contains_the_smaller_one():
    small = set(draw_labels(LABELS, FinetuneConfig(labels_per_class=2), 0))
    assert small < set(draw_labels(LABELS, FinetuneConfig(labels_per_class=4), 0))


def test_a_budget_that_a_class_cannot_pay_is_refused():
    config = {"finetune": FinetuneConfig(labels_per_class=6)}
    counts = {"labels": {"counts": {"a": 40, "b": 10, "c": 5}}}
    with pytest.raises(ConfigError, match=r"'c' has 5 training clips; set it to 5 or less"):
        check(config, counts)


def test_standardising_folds_into_the_head_without_changing_a_score():
    torch.manual_seed(0)
    features = torch.randn(20, 6) * torch.tensor([1.0, 5, 0.1, 2, 3, 1]) + 4
    head = LinearClassifier(6, 3, power=0.5)
    torch.nn.init.normal_(head.linear.weight)
    normalized = head.normalize(features)
    scale = Standardize.of(normalized)
    before = head.linear(scale(normalized)).detach()
    scale.fold_into(head.linear)
    torch.testing.assert_close(head(features), before, atol=1e-4, rtol=1e-4)
    assert before.std() > 0.1


def test_features_can_be_left_as_they_are():
    features, linear = torch.randn(5, 6), torch.nn.Linear(6, 3)
    before = linear(features).detach()
    scale = Standardize.none()
    assert torch.equal(scale(features), features)
    scale.fold_into(linear)
    torch.testing.assert_close(linear(features), before)


def test_a_feature_that_never_varies_does_not_explode():
    features = torch.randn(20, 6)
    features[:, 2] = 1.0
    scaled = Standardize.of(features)(features + 0.1 * torch.eye(20, 6))
    assert scaled.isfinite().all()


@pytest.mark.parametrize(("num_clips", "epochs"), [(50, 40), (320, 40), (3200, 10), (10**6, 1)])
def test_many_labels_take_few_passes(num_clips, epochs):
    config = FinetuneConfig(batch_size=32, encoder_epochs=40, encoder_max_steps=1000)
    assert encoder_epochs(num_clips, config) == epochs
