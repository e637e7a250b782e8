"""What students learn beside hard pseudo-labels: soft ones, teachers' embeddings, soft classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unfused.audio.samples import Windows
from unfused.clustering import ClusterModel, Moments, Whitening
from unfused.config import AudioConfig, DistillConfig, ScoringConfig, SelftrainConfig
from unfused.jobs.distill import DistillLearner
from unfused.jobs.features import Matching
from unfused.jobs.selftrain_learner import SelftrainLearner, SoftLabels
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig
from unfused.models.student import StudentHeads

CLIPS, CLASSES = 12, 3


def encoder() -> ClipEncoder:
    torch.manual_seed(0)
    config = AudioNTTConfig(embedding_dim=32, dropout=0.0)
    return ClipEncoder(AudioConfig().settled(), config, mean=-8.0, std=3.0)


def batch(clips: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    every = torch.randint(-9000, 9000, (CLIPS, 15200), generator=generator, dtype=torch.int16)
    return {"samples": every[clips], "clip": torch.tensor(clips)}


def distilled(labels: torch.Tensor, **changes) -> DistillLearner:
    made = encoder()
    torch.manual_seed(2)
    heads = [StudentHeads(made.encoder, CLASSES, 8)]
    rows = torch.randn(CLIPS, 6, generator=torch.Generator().manual_seed(3)).half()
    matched = [(rows, 1.0)] if changes.get("feature_weight") else []
    return DistillLearner(made, heads, [labels], DistillConfig(**changes), matched).eval()


def test_soft_labels_that_are_sure_are_the_hard_ones():
    hard = torch.arange(CLIPS) % CLASSES
    soft = torch.nn.functional.one_hot(hard, CLASSES).half()
    some = batch([0, 3, 4, 7])
    assert distilled(hard)(some).item() == pytest.approx(distilled(soft)(some).item(), rel=1e-4)


def test_soft_labels_come_from_distances_and_sharpen_as_the_temperature_falls():
    rows = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    whitening = Whitening.fit(Moments.of(rows), num_components=4, whiten=True, normalize=True)
    model = ClusterModel(whitening, whitening.transform(rows)[:3])
    soft = model.soft(rows, 0.5)
    away = ((whitening.transform(rows)[:, None] - model.centroids) ** 2).sum(2)
    expected = np.exp(-away / 0.5)
    np.testing.assert_allclose(soft, expected / expected.sum(1, keepdims=True), atol=1e-5)
    assert (model.soft(rows, 0.01).argmax(1) == model.label(rows)[0]).all()
    assert model.soft(rows, 0.01).max(1).mean() > soft.max(1).mean()


def test_matching_is_nothing_where_the_student_makes_of_clips_what_the_teacher_does():
    rows = torch.randn(CLIPS, 6)
    matching = Matching(6, [(rows, 0.7)])
    with torch.no_grad():
        matching.projectors[0].weight.copy_(torch.eye(6))
        matching.projectors[0].bias.zero_()
    clip = torch.tensor([2, 5])
    assert matching(rows[clip] * 3, clip).abs().max() < 1e-3
    assert matching(-rows[clip], clip).mean().item() == pytest.approx(1.4, abs=1e-3)
    share, partner = torch.tensor([0.25, 0.25]), torch.tensor([1, 0])
    mixed = 0.75 * rows[clip] + 0.25 * rows[clip.flip(0)]
    assert matching(mixed, clip, share, partner).abs().max() < 1e-3


def test_feature_weight_adds_to_the_loss_and_moves_the_encoder():
    hard, some = torch.arange(CLIPS) % CLASSES, batch([1, 2, 6])
    plain, more = distilled(hard), distilled(hard, feature_weight=2.0)
    assert more(some).item() > plain(some).item()
    more(some).backward()
    assert more.matching.projectors[0].weight.grad.abs().sum() > 0


class Waves:
    """Labelled clips that are there already."""

    def random_windows(self, indices, num_samples, rng):
        return batch(list(indices))["samples"].numpy()

    def even_windows(self, indices, cut):
        samples = batch(list(indices))["samples"].numpy()
        return Windows(samples, np.ones(len(samples), np.int64))


def selftrained(**changes) -> SelftrainLearner:
    """Clips 0, 1, 2 are labelled, each of its own class and fold."""
    generator = torch.Generator().manual_seed(4)
    said = torch.rand(1 + 3, CLIPS, CLASSES, generator=generator).softmax(2)
    folds = torch.full((CLIPS,), -1, dtype=torch.int8)
    folds[:3] = torch.arange(3, dtype=torch.int8)
    labels = SoftLabels(said, folds, torch.arange(3), torch.arange(3))
    config = SelftrainConfig(**{"mix": 0.0, "feature_weight": 0.0, "epochs": 4, **changes})
    torch.manual_seed(5)
    return SelftrainLearner(encoder(), labels, [], Waves(), config, ScoringConfig())


def test_labelled_clips_are_left_out_until_the_last_epochs():
    learner = selftrained()
    learner.start_epoch(0)
    target, weight = learner._targets(torch.tensor([0, 5]))
    assert weight[0].tolist() == [0, 1]
    assert weight[1:, 1].tolist() == [1, 1, 1]
    # The heads of the other folds are told clip 0, whose labels their probes know.
    assert weight[1:, 0].tolist() == [0, 1, 1]
    learner.start_epoch(3)
    target, weight = learner._targets(torch.tensor([0, 5]))
    assert weight[0].tolist() == [1, 1]
    assert target[0, 0].tolist() == [1, 0, 0]
    assert weight[1:, 0].tolist() == [0, 1, 1]


def test_how_right_it_is_is_measured_once_before_they_are_told():
    learner = selftrained()
    found = []
    for epoch in range(4):
        learner.start_epoch(epoch)
        found.append(float(learner.right))
    assert np.isnan(found[:3]).all()
    # Heads that have learned nothing say the first class of all clips, and it is right of one.
    assert found[3] == pytest.approx(1 / 3)
    assert "right" in learner.state_dict()


def test_the_folds_heads_move_nothing_but_themselves():
    learner = selftrained(label_weight=1.0)
    learner.start_epoch(0)
    only_labelled = batch([0, 1, 2])
    learner.train()
    learner(only_labelled).backward()
    moved = [p.grad for p in learner.clip_encoder.parameters() if p.grad is not None]
    assert all(grad.abs().max() == 0 for grad in moved)
    assert learner.fold_heads.linear.weight.grad.abs().sum() > 0


def test_mixed_clips_have_mixed_labels():
    learner = selftrained(mix=0.5)
    learner.start_epoch(0)
    features = torch.randn(2, 32)
    clip, share, partner = torch.tensor([5, 6]), torch.tensor([0.3, 0.3]), torch.tensor([1, 0])
    torch.nn.init.normal_(learner.head.linear.weight)
    mixed = learner._label_loss(features, clip, share, partner)
    scores = learner.head(features).log_softmax(1)
    said = learner.labels.said[0, clip]
    of_head = -((0.7 * said + 0.3 * said[partner]) * scores).sum(1).mean()
    of_folds = 3 * np.log(CLASSES)  # Their heads start at zero.
    assert mixed.item() == pytest.approx(of_head.item() + of_folds, rel=1e-4)


def test_consistency_counts_where_the_plain_clip_is_sure():
    learner = selftrained(consistency_weight=1.0, label_weight=0.0)
    spectrogram = learner.clip_encoder.spectrogram(batch([5, 6])["samples"])
    features = torch.randn(2, 32)
    assert learner._consistency(spectrogram, features).item() == 0
    with torch.no_grad():
        learner.head.linear.bias.copy_(torch.tensor([9.0, 0, 0]))
    assert learner._consistency(spectrogram, features).item() == pytest.approx(0, abs=1e-3)
    torch.nn.init.normal_(learner.head.linear.weight, std=0.3)
    assert learner._consistency(spectrogram, features).item() > 0


def test_with_one_label_a_class_nothing_is_left_out_and_nothing_measured():
    learner = selftrained()
    learner.labels = SoftLabels(
        learner.labels.said[:1], torch.full((CLIPS,), 0, dtype=torch.int8) - 1,
        torch.arange(3), torch.arange(3),
    )  # fmt: skip
    for epoch in range(4):
        learner.start_epoch(epoch)
    assert torch.isnan(learner.right)


def test_where_most_clips_have_labels_they_are_learned_from_the_beginning():
    learner = selftrained()
    learner.labels = SoftLabels(
        learner.labels.said, torch.arange(CLIPS, dtype=torch.int8) % 3,
        torch.arange(CLIPS), torch.arange(CLIPS) % 3,
    )  # fmt: skip
    for epoch in range(4):
        learner.start_epoch(epoch)
        assert learner._told
    assert torch.isnan(learner.right)
