"""Probes, their cross-validation, and what several together say."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.linear_model import LogisticRegression

from unfused.probing import Folds, Neighbours, Spread, combine, fit, untold, weights
from unfused.probing.facts import DrawTrust
from unfused.probing.probe import MAX_RANK, NEVER, _Span


def clouds(per_class: int, classes: int, width: int, apart: float, seed: int = 0):
    """Embeddings (n, D) of classes that lie `apart`, and their ids (n,)."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(classes), per_class)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    return centres[ids] * apart + rng.standard_normal((len(ids), width)), ids


def test_a_probe_is_logistic_regression_on_standardised_embeddings():
    rows, ids = clouds(5, 3, 40, 0.5)
    found = fit(rows, ids, 3, Folds.of(ids, 5, 1, seed=0))
    scaled = (rows - rows.mean(0)) / rows.std(0)
    same = LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8).fit(scaled, ids)
    new, _ = clouds(20, 3, 40, 0.5, seed=1)
    expected = same.predict_proba((new - rows.mean(0)) / rows.std(0))
    np.testing.assert_allclose(found.probe.probabilities(new), expected, atol=5e-3)


def test_cross_validation_tells_what_a_probe_is_worth():
    for apart, least, most in ((2.0, 0.95, 1.0), (0.0, 0.0, 0.55)):
        rows, ids = clouds(5, 4, 64, apart)
        found = fit(rows, ids, 4, Folds.of(ids, 5, 3, seed=0))
        assert least <= found.accuracy <= most
        assert len(found.by_fold) == 5
        np.testing.assert_allclose(found.held_out.sum(1), 1, atol=1e-6)


def test_a_clip_that_is_left_out_has_no_say_in_its_own_judgement():
    rows, ids = clouds(5, 3, 30, 0.5)
    folds = Folds.of(ids, 5, 1, seed=0)
    before = fit(rows, ids, 3, folds)
    told = ids.copy()
    told[0] = 1
    space = _Span.of(rows)
    alone = space.leave_out(told, 3, before.strength, folds.first)
    np.testing.assert_allclose(alone[0], before.held_out[0], atol=1e-3)
    others = folds.first != folds.first[0]
    assert np.abs(alone[others] - before.held_out[others]).max() > 1e-3


def test_the_only_clip_of_a_class_counts_as_wrong_and_the_others_are_validated_as_ever():
    rows, ids = clouds(5, 3, 8, 6.0)
    rows, ids = np.concatenate([rows, -9 * rows[:1]]), np.append(ids, 3)
    found = fit(rows, ids, 4, Folds.of(ids, 5, 1, seed=0))
    assert found.accuracy == pytest.approx(15 / 16)
    assert found.held_out[-1].argmax() != 3
    assert found.probe.probabilities(rows)[-1].argmax() == 3


def test_every_fold_has_clips_of_every_class_and_single_clips_alone_leave_nothing_out():
    _, ids = clouds(5, 3, 4, 1.0)
    folds = Folds.of(ids, 5, 2, seed=0)
    assert len(folds.tests) == 2 and not np.array_equal(*folds.tests)
    for test in folds.tests:
        for number in range(5):
            assert sorted(ids[test == number]) == [0, 1, 2]
    assert Folds.of(ids, 10, 1, seed=0).first.max() == 4
    alone = Folds.of(np.arange(3), 5, 1, seed=0)
    rows, _ = clouds(1, 3, 8, 1.0)
    found = fit(rows, np.arange(3), 3, alone)
    assert found.accuracy is None and found.by_fold == () and found.held_out is None
    assert (found.probe.probabilities(rows).argmax(1) == np.arange(3)).all()


@pytest.mark.parametrize("classes", [1, 2])
def test_classes_without_a_labelled_clip_are_never_guessed(classes):
    rows, ids = clouds(4, classes, 10, 1.0)
    probe = fit(rows, ids, classes + 2, Folds.of(ids, 2, 1, seed=0)).probe
    assert (probe.bias[classes:] == NEVER).all()
    assert (probe.probabilities(rows).argmax(1) < classes).all()


def test_with_very_many_clips_a_probe_stays_small_and_right():
    rows, ids = clouds(300, 3, 700, 0.3)
    found = fit(rows, ids, 3, Folds.of(ids, 2, 1, seed=0))
    assert len(rows) > MAX_RANK and found.accuracy > 0.95


def said(ids: np.ndarray, right: np.ndarray, sure: float, classes: int = 4) -> np.ndarray:
    """Probabilities (n, N) of a teacher that is right where it is said to be."""
    guess = np.where(right, ids, (ids + 1) % classes)
    table = np.full((len(ids), classes), (1 - sure) / (classes - 1))
    table[np.arange(len(ids)), guess] = sure
    return table


def test_trust_goes_to_who_is_right_and_not_to_who_is_sure():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, 60)
    good = said(ids, rng.random(60) < 0.95, 0.7)
    sure = said(ids, rng.random(60) < 0.3, 0.999)
    found = weights([good, sure], ids)
    assert found[0] > 0.5 and found[1] == 0
    pooled = combine([good, sure], found)
    assert (pooled.argmax(1) == ids).mean() >= (good.argmax(1) == ids).mean()


def test_somebody_is_heard_even_where_nobody_knows_anything():
    ids = np.arange(40) % 4
    wrong = said(ids, np.zeros(40, bool), 0.99)
    assert weights([wrong, wrong], ids).tolist() == [0.5, 0.5]


def test_what_is_said_of_a_pool_is_not_what_it_was_fitted_to():
    rng = np.random.default_rng(4)
    ids, fold = np.arange(40) % 4, np.arange(40) // 4 % 5
    fitted, honest = [], []
    for _ in range(5):
        guessing = [rng.dirichlet(np.ones(4), 40) for _ in range(30)]
        fitted.append(combine(guessing, weights(guessing, ids)).argmax(1) == ids)
        honest.append(untold(guessing, ids, fold).argmax(1) == ids)
    assert np.mean(fitted) > np.mean(honest) + 0.1
    assert 0.15 < np.mean(honest) < 0.35
    good = [said(ids, rng.random(40) < 0.9, 0.8) for _ in range(3)]
    assert (untold(good, ids, fold).argmax(1) == ids).mean() > 0.9


def test_two_that_know_different_things_are_better_together():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 4, 80)
    odd = np.arange(80) % 2 == 0
    first = np.where(odd[:, None], said(ids, odd, 0.9), 0.25)
    second = np.where(odd[:, None], 0.25, said(ids, ~odd, 0.9))
    pooled = combine([first, second], weights([first, second], ids))
    assert (pooled.argmax(1) == ids).mean() == 1.0
    assert (first.argmax(1) == ids).mean() < 0.8


def test_who_says_the_same_as_another_shares_its_weight():
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 4, 60)
    one = said(ids, rng.random(60) < 0.8, 0.7)
    found = weights([one, one], ids)
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_who_weighs_nothing_is_not_heard_and_the_student_is_no_teacher():
    accuracy, weights = {"a": 0.9, "b": 0.4, "student": 0.95}, {"a": 0.8, "b": 0.0, "student": 0.3}
    draw = DrawTrust(accuracy=accuracy, weights=weights, pooled=0.9)
    assert draw.best == "a" and draw.heard == {"a": 0.8, "student": 0.3}


def told(clips: np.ndarray, ids: np.ndarray, total: int) -> np.ndarray:
    table = np.zeros((total, ids.max() + 1), np.float32)
    table[clips, ids[clips]] = 1
    return table


def arcs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips (120, 4) of two classes along an arc of 270 degrees each, and their ids, in order."""
    rng = np.random.default_rng(seed)
    turn = np.tile(np.linspace(0, 1.5 * np.pi, 60), 2)
    ids = np.repeat([0, 1], 60)
    across = np.where(ids, -1.0, 1.0)
    rows = np.stack([np.cos(turn), np.sin(turn), across, across * np.cos(turn)], 1)
    return (rows + 0.03 * rng.standard_normal(rows.shape)).astype(np.float32), ids


def test_few_labels_spread_along_strands_and_serve_clips_that_are_new():
    rows, ids = arcs(0)
    few = np.array([0, 3, 60, 63])
    joined = Neighbours.of(rows, 5)
    said = joined.spread(told(few, ids, len(rows)))
    assert said.shape == (120, 2) and np.allclose(said.sum(1), 1, atol=1e-5)
    assert (said.argmax(1) == ids).mean() > 0.99
    new, _ = arcs(1)
    heard = Spread(joined, said.astype(np.float16)).probabilities(new)
    assert (heard.argmax(1) == ids).mean() > 0.99
    kept = Neighbours.from_arrays(load(save(joined.arrays())))
    again = Spread(kept, load(save({"said": said}))["said"]).probabilities(new)
    np.testing.assert_allclose(again, heard, atol=2e-3)
    probe = fit(rows[few], ids[few], 2, Folds.of(ids[few], 2, 1, seed=0)).probe
    assert (probe.probabilities(new).argmax(1) == ids).mean() < 0.9


def test_a_clip_that_nothing_reaches_is_taken_for_every_class_alike():
    rows = np.repeat([[1.0, 0.0], [0.0, 1.0]], 5, axis=0)
    rows = rows + 0.01 * np.random.default_rng(0).standard_normal(rows.shape)
    said = Neighbours.of(rows, 3).spread(told(np.array([0]), np.arange(10) // 5, 10))
    assert (said[:5].argmax(1) == 0).all()
    np.testing.assert_allclose(said[5:], 0.5, atol=1e-3)
