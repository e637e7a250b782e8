"""The small encoder: what it costs, what folding leaves alike, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from unfused.models.encoders import time_mean
from unfused.models.encoders.mobile_net import LAYERS, MobileNet


def model(n_mels: int = 16, embedding_dim: int = 24, dropout: float = 0.0) -> MobileNet:
    """One with batch-norm statistics that are not the trivial ones."""
    torch.manual_seed(0)
    made = MobileNet(n_mels, embedding_dim, dropout)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return made


def spectrogram(batch: int = 2, bands: int = 16, frames: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(batch, 1, bands, frames, generator=generator)


@pytest.mark.parametrize(("dim", "count"), [(512, 656_580), (256, 377_540)])
def test_it_has_fewer_than_a_million_parameters(dim, count):
    with torch.device("meta"):
        made = MobileNet(embedding_dim=dim)
    assert sum(p.numel() for p in made.parameters()) == count < 1_000_000


@pytest.mark.parametrize("bands", [8, 16, 40, 64])
@pytest.mark.parametrize("frames", [MobileNet.min_frames, 96])
def test_every_layer_is_as_wide_as_it_says(bands, frames):
    made = model(bands).eval()
    x = spectrogram(bands=bands, frames=frames)
    features = made(x)
    assert features.clip.shape == (2, 24)
    torch.testing.assert_close(made.embed(x, "last"), features.clip)
    for layer, found in zip(LAYERS[:-1], features.shallow, strict=True):
        embedding = made.embed(x, layer)
        assert embedding.shape == (2, made.width(layer))
        torch.testing.assert_close(embedding, time_mean(found))


def test_its_stages_halve_a_window_of_a_second_two_three_and_four_times():
    shapes = [tuple(found.shape[1:]) for found in MobileNet().eval()(torch.zeros(1, 1, 64, 96))[0]]
    assert shapes == [(24, 16, 24), (40, 8, 12), (80, 4, 6)]


def test_folded_batch_norms_give_the_same_outputs():
    made = model().eval()
    folded, x = made.for_inference(), spectrogram(batch=3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        found, wanted = folded(x), made(x)
    for one, other in zip(
        (*found.shallow, found.clip), (*wanted.shallow, wanted.clip), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_folding_leaves_the_encoder_in_training_as_it_was():
    made = model().train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    folded = made.for_inference()
    assert made.training and not folded.training
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_the_fast_memory_layout_gives_the_same_features_and_stays():
    x, layout = spectrogram(), torch.channels_last
    plain = model().eval()(x)
    fast = model().eval().to(memory_format=layout)(x.contiguous(memory_format=layout))
    torch.testing.assert_close(fast.clip, plain.clip)
    assert all(found.is_contiguous(memory_format=layout) for found in fast.shallow)


def test_every_parameter_has_a_gradient():
    made = model().train()
    made(spectrogram(batch=8)).clip.square().sum().backward()
    without = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_one_clip_as_short_as_may_be_can_be_trained_on():
    made = model(n_mels=8).train()
    made(spectrogram(batch=1, bands=8, frames=MobileNet.min_frames)).clip.sum().backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


def test_a_worker_without_clips_leaves_the_encoder_as_it_is():
    made = model().train()
    before = {name: buffer.clone() for name, buffer in made.named_buffers() if "mean" in name}
    made(spectrogram(batch=0)).clip.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters())
    assert all(torch.equal(made.get_buffer(name), old) for name, old in before.items())


def test_what_it_cannot_take_is_refused():
    with pytest.raises(ValueError, match=r"32 or more frames\); got \(2, 1, 16, 31\)"):
        model()(spectrogram(frames=31))
    with pytest.raises(ValueError, match="multiple of 8 bands; got 20"):
        MobileNet(n_mels=20)


def rhythms(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a loud band that is on and off at one of three speeds, wherever the band is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    x = torch.randn(count, 1, 16, 32, generator=generator)
    bands = torch.randint(1, 15, (count,), generator=generator)
    for clip, (label, band) in enumerate(zip(labels.tolist(), bands.tolist(), strict=True)):
        period = (32, 16, 8)[label]
        on = torch.arange(32) % period < period // 2
        x[clip, 0, band - 1 : band + 2] += 4 * on
    return x, labels


@pytest.mark.slow
def test_it_learns_to_tell_rhythms_apart():
    torch.manual_seed(0)
    made, head = MobileNet(16, 16, 0.0).train(), nn.Linear(16, 3)
    optimizer = torch.optim.AdamW([*made.parameters(), *head.parameters()], lr=3e-3)
    x, labels = rhythms(64, seed=0)
    # Enough steps for the running statistics of batch norm to follow.
    for _ in range(15):
        for rows in torch.randperm(64).split(16):
            optimizer.zero_grad()
            functional.cross_entropy(head(made(x[rows]).clip), labels[rows]).backward()
            optimizer.step()
    unseen, truth = rhythms(60, seed=1)
    with torch.inference_mode():
        guess = head(made.eval()(unseen).clip).argmax(1)
    assert float((guess == truth).float().mean()) > 0.6
