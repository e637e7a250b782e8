"""AudioNTT computes what was published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_encoder import encoder, spectrogram
from torch import Tensor
from torch.nn import functional

from unfused.models.encoders import Features, time_mean
from unfused.models.encoders.audio_ntt import LAYERS, AudioNTT
from unfused.models.encoders.protocol import pool


def as_published(model: AudioNTT, x: Tensor) -> Features:
    """Conv, batch norm, ReLU, pool three times, then each frame's two layers, from raw weights."""
    state = model.state_dict()
    blocks = []
    for i in range(3):
        x = functional.conv2d(
            x, state[f"blocks.{i}.0.weight"], state[f"blocks.{i}.0.bias"], padding=1
        )
        norm = [state[f"blocks.{i}.1.{n}"] for n in ("running_mean", "running_var")]
        scale = [state[f"blocks.{i}.1.{n}"] for n in ("weight", "bias")]
        x = functional.max_pool2d(torch.relu(functional.batch_norm(x, *norm, *scale)), 2)
        blocks.append(x)
    frames = []
    for t in range(x.shape[3]):
        vector = x[:, :, :, t].transpose(1, 2).reshape(len(x), -1)
        hidden = torch.relu(vector @ state["frames.0.weight"].T + state["frames.0.bias"])
        frames.append(torch.relu(hidden @ state["frames.3.weight"].T + state["frames.3.bias"]))
    stacked = np.stack([f.numpy() for f in frames])
    return Features(tuple(blocks), torch.from_numpy(stacked.max(0) + stacked.mean(0)))


@pytest.mark.parametrize(("dim", "count"), [(2048, 5_321_856), (1024, 1_649_792), (512, 600_192)])
def test_the_encoder_has_the_published_number_of_parameters(dim, count):
    with torch.device("meta"):
        model = AudioNTT(n_mels=64, embedding_dim=dim)
    assert sum(p.numel() for p in model.parameters()) == count
    assert [model.width(layer) for layer in LAYERS] == [2048, 1024, 512, dim]


@pytest.mark.parametrize("frames", [8, 20, 23])
def test_the_encoder_computes_what_was_published(frames):
    model, x = encoder(), spectrogram(frames=frames)
    with torch.no_grad():
        found, expected = model(x), as_published(model, x)
    for block, reference in zip(found.shallow, expected.shallow, strict=True):
        torch.testing.assert_close(block, reference)
    torch.testing.assert_close(found.clip, expected.clip)


def test_pooling_before_the_relu_leaves_the_gradient_as_published():
    x = spectrogram()
    norm = torch.nn.BatchNorm2d(1)
    gradients = []
    for order in ((torch.relu, functional.max_pool2d), (functional.max_pool2d, torch.relu)):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        for step in order:
            y = step(y, 2) if step is functional.max_pool2d else step(y)
        y.square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_the_fast_memory_layout_gives_the_same_features():
    x = spectrogram()
    plain = encoder()(x)
    fast = encoder().to(memory_format=torch.channels_last)(
        x.contiguous(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(fast.clip, plain.clip)
    torch.testing.assert_close(time_mean(fast.shallow[0]), time_mean(plain.shallow[0]))


def test_the_embedding_of_a_layer_is_the_one_that_the_heads_see():
    model, x = encoder(), spectrogram()
    features = model(x)
    torch.testing.assert_close(model.embed(x, "last"), features.clip)
    for layer, block in zip(LAYERS[:-1], features.shallow, strict=True):
        embedding = model.embed(x, layer)
        assert embedding.shape == (2, model.width(layer))
        torch.testing.assert_close(embedding, time_mean(block))


def test_the_embedding_of_a_block_is_its_mean_over_time():
    block = torch.randn(2, 3, 4, 5)
    found = time_mean(block).reshape(2, 4, 3)
    for b in range(2):
        for c in range(3):
            for f in range(4):
                mean = float(np.mean(block[b, c, f].numpy()))
                assert float(found[b, f, c]) == pytest.approx(mean, abs=1e-6)


def test_pooling_is_the_maximum_plus_the_mean_over_time():
    frames = torch.tensor([[[1.0, -2.0], [3.0, -4.0]]])
    assert pool(frames).tolist() == [[3.0 + 2.0, -2.0 - 3.0]]


def test_dropout_is_at_work_in_training_only():
    model, x = encoder(), spectrogram()
    assert torch.equal(model(x).clip, model(x).clip)
    model.train()
    assert not torch.equal(model(x).clip, model(x).clip)


def test_a_worker_without_clips_leaves_the_encoder_as_it_is():
    model = encoder().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "mean" in name}
    model(spectrogram(batch=0)).clip.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert all(torch.equal(model.get_buffer(name), old) for name, old in before.items())


def test_a_clip_too_short_for_three_poolings_is_refused():
    assert encoder()(spectrogram(frames=AudioNTT.min_frames)).clip.isfinite().all()
    with pytest.raises(ValueError, match=r"8 or more.*\(2, 1, 16, 7\)"):
        encoder()(spectrogram(frames=AudioNTT.min_frames - 1))


def test_a_spectrogram_with_other_bands_is_refused():
    with pytest.raises(ValueError, match=r"\(clips, 1, 16"):
        encoder().embed(torch.zeros(2, 1, 24, 20), "block1")
    with pytest.raises(ValueError, match="multiple of 8 bands; got 20"):
        AudioNTT(n_mels=20)


def test_an_unknown_layer_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'conv1'; choose from block1, block2, block3, last"):
        encoder().embed(spectrogram(), "conv1")
