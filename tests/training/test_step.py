"""The fast step of every learner goes where the plain one goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unfused import precision, training
from unfused.config import AudioConfig, DistillConfig, PretrainConfig
from unfused.jobs.distill import DistillLearner
from unfused.jobs.finetune import ClassifierLearner
from unfused.jobs.pretrain import PretrainLearner
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig
from unfused.models.heads import LinearClassifier
from unfused.models.student import StudentHeads

WINDOWS, ENCODER = 32, AudioNTTConfig(embedding_dim=64, dropout=0.0)


def _learner(kind: str, encoder: ClipEncoder, samples: torch.Tensor) -> training.Learner:
    if kind == "student":
        heads = [StudentHeads(encoder.encoder, 8, 16)]
        return DistillLearner(encoder, heads, torch.arange(WINDOWS)[None] % 8, DistillConfig())
    if kind == "classifier":
        classifier = ClipClassifier(encoder, LinearClassifier(64, 4), "abcd")
        nn.init.normal_(classifier.head.linear.weight, std=0.1)
        kept = SimpleNamespace(random_windows=lambda indices, *how: samples[indices].numpy())
        return ClassifierLearner(classifier, SimpleNamespace(clips=kept), seed=0)
    return PretrainLearner(encoder, PretrainConfig(objective=kind), range(WINDOWS), WINDOWS)


def _step(kind: str, low: str, layout: torch.memory_format) -> tuple[float, torch.Tensor]:
    """Loss and gradient of one step on tones, whose clusters and classes are their pitches."""
    torch.manual_seed(0)
    encoder = ClipEncoder(AudioConfig(), ENCODER, mean=-8.0, std=3.0)
    if layout == torch.contiguous_format:
        encoder._image = lambda x: encoder.normalize(x)[:, None].contiguous()
    tones = torch.linspace(0.02, 0.6, WINDOWS)[:, None] * torch.arange(encoder.audio.crop_samples)
    samples = (8000 * tones.sin() + 500 * torch.randn(tones.shape)).to(torch.int16)
    learner = _learner(kind, encoder, samples).to(memory_format=layout)
    clip = torch.arange(WINDOWS)
    with precision.autocast(torch.device("cpu"), low):
        loss = learner({"samples": samples, "clip": clip, "label": clip % 4})
    loss.backward()
    gradients = [p.grad.flatten() for p in learner.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients).double()


@pytest.mark.parametrize("kind", ["nt_xent", "barlow_twins", "student", "classifier"])
@pytest.mark.parametrize(
    ("low", "loss_apart", "cosines", "longer"),
    [("float32", 1e-3, (0.998, 1.001), 1e-2), ("bfloat16", 1e-2, (0.97, 0.998), 0.05)],
)
def test_the_fast_step_goes_where_the_plain_one_goes(
    kind, low, loss_apart, cosines, longer
):
    plain_loss, plain = _step(kind, "float32", torch.contiguous_format)
    fast_loss, fast = _step(kind, low, torch.channels_last)
    assert fast_loss == pytest.approx(plain_loss, rel=loss_apart)
    assert cosines[0] < torch.cosine_similarity(fast, plain, dim=0) < cosines[1]
    assert fast.norm() == pytest.approx(float(plain.norm()), rel=longer)
