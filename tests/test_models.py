"""The encoder, its heads and their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load as read_safetensors
from safetensors.torch import save as write_safetensors
from torch import Tensor
from torch.nn import functional

from unfused.models import weights
from unfused.models.encoder import LAYERS, MIN_FRAMES, AudioNTT, Features, pool, time_mean
from unfused.models.heads import LinearClassifier, Projector
from unfused.models.student import StudentHeads


def encoder(seed: int = 0) -> AudioNTT:
    """A small encoder with batch-norm statistics that are not the trivial ones."""
    torch.manual_seed(seed)
    model = AudioNTT(n_mels=16, embedding_dim=24)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def spectrogram(batch: int = 2, frames: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(batch, 1, 16, frames, generator=generator)


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
    assert model.block_widths == (2048, 1024, 512)


@pytest.mark.parametrize("frames", [8, 20, 23])
def test_the_encoder_computes_what_was_published(frames):
    model, x = encoder(), spectrogram(frames=frames)
    with torch.no_grad():
        found, expected = model(x), as_published(model, x)
    for block, reference in zip(found.blocks, expected.blocks, strict=True):
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
    torch.testing.assert_close(time_mean(fast.blocks[0]), time_mean(plain.blocks[0]))


def test_the_embedding_of_a_layer_is_the_one_that_the_heads_see():
    model, x = encoder(), spectrogram()
    features = model(x)
    torch.testing.assert_close(model.embed(x, "last"), features.clip)
    for layer, block, width in zip(LAYERS, features.blocks, model.block_widths, strict=False):
        embedding = model.embed(x, layer)
        assert embedding.shape == (2, width)
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
    assert encoder()(spectrogram(frames=MIN_FRAMES)).clip.isfinite().all()
    with pytest.raises(ValueError, match=r"8 or more.*\(2, 1, 16, 7\)"):
        encoder()(spectrogram(frames=MIN_FRAMES - 1))


def test_a_spectrogram_with_other_bands_is_refused():
    with pytest.raises(ValueError, match=r"\(clips, 1, 16"):
        encoder().embed(torch.zeros(2, 1, 24, 20), "block1")
    with pytest.raises(ValueError, match="multiple of 8 bands; got 20"):
        AudioNTT(n_mels=20)


def test_an_unknown_layer_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'conv1'; choose from block1, block2, block3, last"):
        encoder().embed(spectrogram(), "conv1")


def test_every_head_scores_its_own_layer():
    torch.manual_seed(1)
    model = encoder()
    heads = StudentHeads(model, num_clusters=5, head_width=7)
    features = model(spectrogram())
    found = heads(features)
    state = heads.state_dict()
    deep = features.clip @ state["deep.weight"].T + state["deep.bias"]
    torch.testing.assert_close(found.deep, deep)
    for i, (scores, block) in enumerate(zip(found.shallow, features.blocks, strict=True)):
        vector = block.mean(3).transpose(1, 2).reshape(2, -1)
        first, second = (f"shallow.{i}.{layer}" for layer in (0, 2))
        hidden = torch.relu(vector @ state[f"{first}.weight"].T + state[f"{first}.bias"])
        expected = hidden @ state[f"{second}.weight"].T + state[f"{second}.bias"]
        torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(("width", "expected"), [(None, 5), (7, 7)])
def test_heads_are_as_wide_as_asked_and_as_published_otherwise(width, expected):
    heads = StudentHeads(encoder(), num_clusters=5, head_width=width)
    assert [head[0].out_features for head in heads.shallow] == [expected] * 3
    assert [head[0].in_features for head in heads.shallow] == [512, 256, 128]


def test_heads_do_not_carry_the_encoder_along():
    names = StudentHeads(encoder(), num_clusters=3, head_width=4).state_dict()
    assert {name.split(".")[0] for name in names} == {"deep", "shallow"}


def test_a_student_of_one_cluster_is_refused():
    with pytest.raises(ValueError, match="at least 2 clusters; got 1"):
        StudentHeads(encoder(), num_clusters=1, head_width=None)


def test_the_projector_is_linear_batch_norm_relu_linear():
    torch.manual_seed(0)
    projector, x = Projector(4, 6, 3), torch.randn(5, 4)
    found = projector(x).detach().numpy()
    state = {name: tensor.numpy() for name, tensor in projector.state_dict().items()}
    hidden = x.numpy() @ state["0.weight"].T
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    expected = np.maximum(hidden, 0) @ state["3.weight"].T + state["3.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_worker_with_one_clip_or_none_can_still_train_its_projector(rows):
    torch.manual_seed(0)
    projector = Projector(4, 6, 3)
    projector(torch.randn(16, 4))
    before = projector[1].running_mean.clone()
    x = torch.randn(rows, 4)
    found = projector(x)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in projector.parameters())
    assert torch.equal(projector[1].running_mean, before)
    torch.testing.assert_close(found, projector.eval()(x))


def test_a_classifier_is_one_linear_layer():
    head = LinearClassifier(4, 3)
    assert not any(p.any() for p in head.parameters())
    torch.nn.init.normal_(head.linear.weight)
    torch.nn.init.normal_(head.linear.bias)
    x = torch.randn(2, 4)
    torch.testing.assert_close(head(x), x @ head.linear.weight.T + head.linear.bias)


def test_power_normalisation_keeps_signs_and_has_a_finite_slope_at_zero():
    head = LinearClassifier(4, 3, power=0.5)
    x = torch.tensor([[4.0, -4.0, 0.0, 1.0]], requires_grad=True)
    found = head.normalize(x)
    root = 4.001**0.5 - 0.001**0.5
    expected = torch.tensor([[root, -root, 0.0, 1.001**0.5 - 0.001**0.5]])
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    slope = x.grad[x != 0]
    assert x.grad.isfinite().all() and (slope > 0).all()


def test_the_power_travels_with_the_weights_of_the_head():
    saved, loaded = LinearClassifier(4, 3, power=0.25), LinearClassifier(4, 3)
    weights.load(loaded, weights.save(saved))
    assert float(loaded.power) == 0.25


@pytest.mark.parametrize("power", [0.0, 1.5])
def test_an_exponent_out_of_range_is_refused(power):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        LinearClassifier(4, 3, power)


def test_loaded_weights_are_the_saved_ones_bit_for_bit():
    saved = encoder(seed=0).to(memory_format=torch.channels_last)
    loaded = encoder(seed=1)
    weights.load(loaded, weights.save(saved))
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def changed_weights(change) -> bytes:
    tensors = read_safetensors(weights.save(encoder(seed=0)))
    change(tensors)
    return write_safetensors(tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("frames.0.bias"), "1 tensors are missing: frames.0.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 tensors are unexpected: extra"),
        (
            lambda t: t.update({"frames.0.bias": torch.zeros(25)}),
            r"1 tensors differ: frames.0.bias \(wanted float32\[24\], found float32\[25\]\)",
        ),
        (
            lambda t: t.update({"frames.0.bias": torch.zeros(24).half()}),
            r"wanted float32\[24\], found float16\[24\]",
        ),
        (
            lambda t: [t.update({f"module.{n}": t.pop(n)}) for n in list(t)],
            r"25 tensors are missing: .* and 22 more; 25 tensors are unexpected",
        ),
    ],
    ids=["missing", "unexpected", "shape", "type", "prefix"],
)
def test_weights_of_another_model_are_refused_and_change_nothing(change, message):
    model = encoder(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        weights.load(model, changed_weights(change))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_broken_weights_file_is_refused_in_a_sentence():
    data = weights.save(encoder())
    for broken in (data[: len(data) // 2], b"", b"not weights at all"):
        with pytest.raises(ValueError, match="not whole safetensors weights"):
            weights.load(encoder(), broken)
