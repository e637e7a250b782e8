"""Draws of the labels are the same for all arms, and cost what they say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import write_part
from unfused import data, scorers, training
from unfused.audio.samples import Cut
from unfused.config import AudioConfig, ConfigError, FinetuneConfig
from unfused.data import LabelFacts, draw_labels, short_classes
from unfused.jobs.finetune import FinetuneJob, Standardize, encoder_epochs
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig
from unfused.models.heads import LinearClassifier
from unfused.stages.finetune import check
from unfused.store import Artifact, Folder, npy

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


def test_of_a_class_that_has_fewer_than_are_asked_for_all_are_drawn():
    asked, less = FinetuneConfig(labels_per_class=8), FinetuneConfig(labels_per_class=5)
    chosen = draw_labels(LABELS, asked, 0)
    assert np.bincount(LABELS[chosen]).tolist() == [8, 8, 5]
    assert set(draw_labels(LABELS, less, 0)) < set(chosen), "the others' draws do not move"


def test_the_classes_that_have_fewer_are_told_the_rarest_first():
    counts = {"a": 40, "b": 7, "c": 3, "d": 8}
    short = short_classes(counts, FinetuneConfig(labels_per_class=8))
    assert list(short.items()) == [("c", 3), ("b", 7)]
    assert short_classes(counts, FinetuneConfig(label_fraction=0.5)) == {}


def test_a_class_without_a_training_clip_is_refused_and_a_rare_one_is_not():
    check({}, {"labels": SimpleNamespace(counts={"a": 40, "c": 1})})
    with pytest.raises(ConfigError, match=r"No training clip of class 'c' could be used"):
        check({}, {"labels": SimpleNamespace(counts={"a": 40, "c": 0})})


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


class _OnWindows(training.Learner):
    """The head, as if the encoder were asked anew for every batch."""

    def __init__(self, linear: torch.nn.Linear, features) -> None:
        super().__init__()
        self.linear, self._features = linear, features

    def forward(self, batch):
        scores = self.linear(self._features(batch["window"].numpy()))
        return torch.nn.functional.cross_entropy(scores, batch["label"])


def test_a_head_on_embeddings_that_are_kept_is_the_head_on_windows(ray_cluster, tmp_path):
    rng = np.random.default_rng(0)
    clips = [rng.integers(-9000, 9000, rng.integers(9000, 24000), np.int16) for _ in range(12)]
    part = write_part(tmp_path / "part", clips, per_shard=4)
    torch.manual_seed(0)
    encoder = ClipEncoder.for_part(part.facts, AudioNTTConfig(embedding_dim=16)).eval()
    places = {name: Folder.of(tmp_path / name) for name in ("teacher", "labels", "out")}
    encoder.save(places["teacher"])
    ids = np.arange(12, dtype=np.int32) % 3
    places["labels"].write("labels.npy", npy(ids))
    facts = LabelFacts(digest="l", classes=["a", "b", "c"], counts={})
    labels = Artifact(places["labels"], "labels", facts)
    teacher = Artifact(places["teacher"], "teacher", None)
    config = FinetuneConfig(
        mode="linear", precision="float32", standardize=False, epochs=3, batch_size=5
    )
    worker = training.Worker(0, 1, torch.device("cpu"), lambda event: None)
    job = FinetuneJob(
        "finetune", part, labels, teacher, None, None, None, config, places["out"], [0]
    )
    job.run(worker)

    plain = LinearClassifier(16, 3, config.power)
    windows = data.windows_of(part, np.arange(12), Cut(part.facts.audio.crop_samples))
    assert windows.counts.max() > 1

    @torch.no_grad()
    def features(window: int) -> torch.Tensor:
        samples = torch.from_numpy(windows.samples[window : window + 1])
        return plain.normalize(encoder.embed_windows(samples))[0]

    every = torch.arange(len(windows.samples))
    label = torch.from_numpy(np.repeat(ids, windows.counts)).long()
    columns = {"window": every, "label": label}
    stream = training.CachedStream(columns, config.batch_size, config.seed * 1009)
    learner = _OnWindows(plain.linear, lambda some: torch.stack([features(i) for i in some]))
    worker.fit(learner, stream, config, node="plain", quiet=True)
    learned = ClipClassifier.load(places["out"]).head.linear
    assert learned.weight.abs().max() > 1e-3
    torch.testing.assert_close(learned.weight, plain.linear.weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(learned.bias, plain.linear.bias, rtol=1e-3, atol=1e-5)


SOUND = {"low": 300, "high": 2500}


def _half_a_second(hertz: float, begin: float, seed: int) -> np.ndarray:
    """Five seconds of silence but for half a second of a tone: int16 (S,)."""
    rng = np.random.default_rng(seed)
    clip = rng.integers(-1, 2, 5 * 16000).astype(np.int16)
    tone = 6000 * np.sin(2 * np.pi * hertz * rng.uniform(0.9, 1.1) * np.arange(8000) / 16000)
    clip[int(begin * 16000) :][:8000] += tone.astype(np.int16)
    return clip


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
@pytest.mark.parametrize("mode", ["linear", "linear_then_full"])
def test_a_clip_of_silence_is_classified_by_the_half_second_at_its_start(
    ray_cluster, tmp_path, mode, pooling
):
    begins = np.linspace(0.5, 4.5, 6)
    clips = [_half_a_second(hz, b, i) for hz in SOUND.values() for i, b in enumerate(begins)]
    part = write_part(tmp_path / "part", clips, per_shard=4)
    torch.manual_seed(0)
    places = {name: Folder.of(tmp_path / name) for name in ("encoder", "labels", "out")}
    longer = part.facts.model_copy(update={"audio": AudioConfig(crop_seconds=2)})
    ClipEncoder.for_part(longer, AudioNTTConfig(embedding_dim=32)).save(places["encoder"])
    places["labels"].write("labels.npy", npy(np.repeat(np.arange(2, dtype=np.int32), 6)))
    labels = Artifact(places["labels"], "l", LabelFacts(digest="l", classes=[*SOUND], counts={}))
    config = FinetuneConfig(
        mode=mode, precision="float32", epochs=30, encoder_epochs=25, pooling=pooling
    )
    worker = training.Worker(0, 1, torch.device("cpu"), lambda event: None)
    encoder = Artifact(places["encoder"], "encoder", None)
    job = FinetuneJob(
        "finetune", part, labels, encoder, None, None, None, config, places["out"], [0]
    )
    facts, _ = job.run(worker)
    assert facts.crop_samples == 15200 and facts.pooling == pooling
    assert ClipClassifier.load(places["out"]).encoder.audio == part.facts.audio
    scorer = scorers.load(places["out"], facts)

    def scores(waves: list[np.ndarray]) -> torch.Tensor:
        return scorer.scores(scorers.given(facts, waves, worker.device))[0]

    at_the_start = [_half_a_second(hz, 0.0, 50 + i) for i in range(4) for hz in SOUND.values()]
    assert scores(at_the_start).argmax(1).tolist() == [0, 1] * 4
    silent = [np.zeros(80000, np.int16), np.zeros(100, np.int16)]
    assert scores(silent).isfinite().all()
