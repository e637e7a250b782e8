"""The encoder's first block on CPU gives what the plain modules give."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from unfused.models import fast_first_block
from unfused.models.encoders.audio_ntt import AudioNTT
from unfused.models.fast_first_block import FirstBlock, patch_statistics

CHANNELS = 8
BIASES = {f"blocks.{number}.0.bias" for number in range(3)}


def block(training: bool = True) -> FirstBlock:
    """A block whose batch norm does something, with scales below zero among others."""
    torch.manual_seed(1)
    made = FirstBlock(
        nn.Conv2d(1, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.MaxPool2d(2), nn.ReLU()
    )
    made.to(memory_format=torch.channels_last).train(training)
    with torch.no_grad():
        made[1].weight.uniform_(-1.0, 1.5)
        made[1].bias.normal_()
        made[1].running_mean.normal_()
        made[1].running_var.uniform_(0.5, 2.0)
    return made


def images(bands: int = 16, frames: int = 20) -> Tensor:
    """Of a mean that is not 0."""
    generator = torch.Generator().manual_seed(frames)
    found = 1.3 * torch.randn(6, 1, bands, frames, generator=generator) + 0.4
    return found.to(memory_format=torch.channels_last)


def outcome(module: nn.Module, x: Tensor, dtype: torch.dtype, plain: bool) -> dict[str, Tensor]:
    """Output, gradients and buffers after one step of a copy of the module."""
    module = copy.deepcopy(module)
    run = nn.Sequential.forward if plain else type(module).forward
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = run(module, x)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * direction).sum().backward()
    gradients = {name: value.grad for name, value in module.named_parameters()}
    return {"output": found, **gradients, **dict(module.named_buffers())}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    """Of each tensor from its namesake, as a share of that one's length."""
    assert one.keys() == other.keys()
    return {
        name: float((one[name] - other[name]).detach().float().norm())
        / max(1e-3, float(other[name].detach().float().norm()))
        for name in one
    }


@pytest.mark.parametrize("frames", [20, 21])
@pytest.mark.parametrize("training", [True, False])
def test_the_first_block_is_the_four_plain_modules(training, frames):
    mine = outcome(block(training), images(frames=frames), torch.float32, plain=False)
    plain = outcome(block(training), images(frames=frames), torch.float32, plain=True)
    assert mine["output"].stride() == plain["output"].stride()
    apart = distance(mine, plain)
    # In training the bias of the convolution has no effect: both gradients are rounding.
    assert apart.pop("0.bias") < (0.05 if training else 1e-5)
    assert max(apart.values()) < 1e-5, apart


def test_in_bfloat16_it_is_as_close_to_float32_as_the_plain_modules_are():
    exact = outcome(block(), images(), torch.float32, plain=True)
    mine = distance(outcome(block(), images(), torch.bfloat16, plain=False), exact)
    plain = distance(outcome(block(), images(), torch.bfloat16, plain=True), exact)
    for name in mine.keys() - {"0.bias"}:
        assert mine[name] < 1.3 * plain[name] + 1e-4, (name, mine[name], plain[name])


def test_chunks_of_any_size_give_one_result(monkeypatch):
    whole = outcome(block(), images(), torch.float32, plain=False)
    monkeypatch.setattr(fast_first_block, "POSITIONS_IN_CACHE", 37)
    parts = outcome(block(), images(), torch.float32, plain=False)
    assert max(distance(parts, whole).values()) < 1e-6


def test_of_equal_values_the_first_has_the_gradient_as_in_torch():
    flat = torch.ones(2, 1, 16, 16).to(memory_format=torch.channels_last)
    mine = outcome(block(training=False), flat, torch.float32, plain=False)
    plain = outcome(block(training=False), flat, torch.float32, plain=True)
    assert max(distance(mine, plain).values()) < 1e-5


def test_statistics_of_patches_are_those_of_unfold():
    x = images(frames=21)
    mean, covariance, count = patch_statistics(x)
    found = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    assert count == len(found)
    assert torch.allclose(mean.double(), found.mean(0), atol=1e-6)
    assert torch.allclose(covariance.double(), torch.cov(found.T, correction=0), atol=1e-5)


def test_where_gradients_of_the_input_are_asked_for_the_plain_modules_run():
    x = images().requires_grad_()
    block()(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_synchronised_batch_norm_stays_synchronised():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(block(training=False))
    found, plain = converted(images()), block(training=False)(images())
    assert isinstance(converted[1], nn.SyncBatchNorm)
    assert torch.allclose(found, plain, atol=1e-5)


def test_an_encoder_takes_no_clips_at_all():
    model = AudioNTT(n_mels=16, embedding_dim=24).eval()
    assert model(torch.zeros(0, 1, 16, 24)).clip.shape == (0, 24)


def test_an_encoder_has_the_same_weights_and_gradients_with_the_part_off(monkeypatch):
    x, found = images(), {}
    for chosen in ("first_block", "none"):
        monkeypatch.setenv("UNFUSED_SPEEDUPS", chosen)
        torch.manual_seed(4)
        model = AudioNTT(n_mels=16, embedding_dim=24, dropout=0.0)
        weights = {f"before.{name}": p.detach().clone() for name, p in model.named_parameters()}
        clip = model(x).clip
        clip.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found[chosen] = {"clip": clip, **weights, **gradients}
        assert isinstance(model.blocks[0], FirstBlock) == (chosen == "first_block")
    apart = distance(found["first_block"], found["none"])
    # Before batch norm a bias has no effect: both gradients are rounding.
    apart = {name: far for name, far in apart.items() if name not in BIASES}
    assert max(apart.values()) < 1e-4, apart
