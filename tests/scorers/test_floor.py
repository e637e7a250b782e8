"""The floor: statistics of whole clips, and logistic regression on the few labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unfused.audio.statistics import BANDS, front_end, statistics
from unfused.config import Config, override
from unfused.pipeline import graph
from unfused.scorers import ScorerFacts, load
from unfused.scorers.floor import STRENGTHS, choose_strength, fit
from unfused.scorers.floor import Config as FloorConfig
from unfused.store import Folder

RATE = 16000


def tone(hertz: float, seconds: float = 0.6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = 0.4 * np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6))
    wave += 0.02 * rng.standard_normal(len(time))
    return (wave * 32767).astype(np.int16)


def clips(per_class: int, classes=(200.0, 700.0, 2500.0), seed: int = 0):
    """Tones of three pitches, each of its own length and pitch; and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), per_class)
    waves = [
        tone(classes[n] * rng.uniform(0.9, 1.1), rng.uniform(0.3, 1.2), seed + i)
        for i, n in enumerate(labels)
    ]
    return waves, labels


def scorer(folder, draws, num_classes: int):
    for repeat, one in enumerate(draws):
        one.save(folder, repeat)
    facts = ScorerFacts(
        kind="floor",
        classes=[str(n) for n in range(num_classes)],
        num_repeats=len(draws),
        num_labels=6,
        num_validation_labels=0,
    )
    return load(folder, facts)


def test_the_statistics_are_the_ones_that_are_named():
    wave = torch.from_numpy(tone(440, 0.5))
    frames = front_end(RATE)(wave[None])[0].numpy()
    found = statistics(wave, front_end(RATE)).numpy()
    assert found.shape == (9 * BANDS,)
    pieces = [piece.mean(1) for piece in np.array_split(frames, 6, axis=1)]
    expected = [frames.mean(1), frames.std(1), np.diff(frames, axis=1).std(1), *pieces]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 160, 700])
def test_a_clip_of_a_frame_or_two_has_statistics_too(samples):
    found = statistics(torch.ones(samples, dtype=torch.int16), front_end(RATE))
    assert found.shape == (9 * BANDS,) and torch.isfinite(found).all()


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_the_bands_fit_every_sample_rate(rate):
    assert torch.isfinite(statistics(torch.ones(rate, dtype=torch.int16), front_end(rate))).all()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_few_labels_tell_tones_apart(tmp_path, num_classes):
    hertz = (200.0, 700.0, 2500.0)[:num_classes]
    waves, labels = clips(4, hertz)
    draws = [fit(FloorConfig(), waves, labels, num_classes, RATE) for _ in range(2)]
    found = scorer(Folder.of(tmp_path), draws, num_classes)
    others, truth = clips(10, hertz, seed=100)
    scores = found.scores([torch.from_numpy(w) for w in others])
    assert scores.shape == (2, 10 * num_classes, num_classes)
    assert (scores[0].argmax(1).numpy() == truth).mean() > 0.9


def test_two_classes_have_the_probabilities_of_scikit_learn(tmp_path):
    waves, labels = clips(6, (300.0, 330.0))
    model = fit(FloorConfig(), waves, labels, 2, RATE)
    features = torch.stack([statistics(torch.from_numpy(w), front_end(RATE)) for w in waves])
    from unfused.scorers.floor import regression

    rows = ((features - model.mean) / model.std).double().numpy()
    theirs = regression(model.strength).fit(rows, labels).predict_proba(rows)
    np.testing.assert_allclose(model.scores(features).softmax(1).numpy(), theirs, atol=1e-4)


def test_a_class_without_a_labelled_clip_is_never_said_and_moves_no_other():
    waves, labels = clips(4, (200.0, 2500.0))
    model = fit(FloorConfig(), waves, labels * 2, 3, RATE)
    features = torch.stack([statistics(torch.from_numpy(w), front_end(RATE)) for w in waves])
    assert model.scores(features).argmax(1).tolist() == (labels * 2).tolist()
    assert float(model.scores(features).softmax(1)[:, 1].max()) < 1e-6


def test_what_is_kept_is_what_was_fitted(tmp_path):
    waves, labels = clips(3)
    model = fit(FloorConfig(), waves, labels, 3, RATE)
    features = torch.stack([statistics(torch.from_numpy(w), front_end(RATE)) for w in waves])
    found = scorer(Folder.of(tmp_path), [model], 3)
    scores = found.scores([torch.from_numpy(wave) for wave in waves])
    assert torch.equal(scores[0], model.scores(features))


def test_the_regularisation_is_chosen_among_the_labelled_clips_alone():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    telling = rng.standard_normal((40, 30))
    telling[:, 0] += 4 * labels
    strength, accuracy = choose_strength(telling, labels)
    assert strength in STRENGTHS and accuracy > 0.8
    uneven = np.append(labels, 2)
    _, with_one = choose_strength(np.append(telling, [telling[0]], axis=0), uneven)
    assert 0.7 < with_one < accuracy
    single = np.arange(3)
    strength, accuracy = choose_strength(rng.standard_normal((3, 5)), single)
    assert strength == STRENGTHS[len(STRENGTHS) // 2] and np.isnan(accuracy)


def test_it_runs_in_every_default_run_and_looks_at_the_same_labels():
    nodes = {node.name: node for node in graph(Config(), has_corpus=False)}
    assert Config().arms[0] == "floor"
    assert nodes["fit/floor"].config["draws"] == Config().finetune.draws
    assert nodes["evaluate/floor"].inputs["classifier"].node == "fit/floor"
    alone = override(Config(), {"arms": "[floor]"})
    assert [node.stage for node in graph(alone, has_corpus=False)] == ["ingest", "fit", "evaluate"]


def test_another_learning_rate_leaves_it_alone():
    changed = override(Config(), {"finetune.learning_rate": 0.5, "finetune.epochs": 3})
    before, after = (
        {node.name: node for node in graph(config, has_corpus=False)}["fit/floor"]
        for config in (Config(), changed)
    )
    assert before == after
