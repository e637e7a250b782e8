"""Weights that are loaded are those that were saved, or none."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load as read_safetensors
from safetensors.torch import save as write_safetensors
from small_encoder import encoder

from unfused.models import weights


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
