"""The heads on an encoder, and those of a student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_encoder import encoder, spectrogram

from unfused.models import weights
from unfused.models.encoders import Encoder, Features
from unfused.models.heads import LinearClassifier, Projector
from unfused.models.student import StudentHeads


def test_every_head_scores_its_own_layer():
    torch.manual_seed(1)
    model = encoder()
    heads = StudentHeads(model, num_clusters=5, head_width=7)
    features = model(spectrogram())
    found = heads(features)
    state = heads.state_dict()
    deep = features.clip @ state["deep.weight"].T + state["deep.bias"]
    torch.testing.assert_close(found.deep, deep)
    for i, (scores, block) in enumerate(zip(found.shallow, features.shallow, strict=True)):
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


def test_an_encoder_of_one_layer_has_no_shallow_heads():
    heads = StudentHeads(Encoder(n_mels=16, embedding_dim=24), num_clusters=5, head_width=7)
    found = heads(Features((), torch.ones(2, 24)))
    assert found.deep.shape == (2, 5) and found.shallow == ()
