"""Encoders by kind, and what a saved one holds."""

from __future__ import annotations

import json

import pytest
import torch

from unfused.audio.frontend import Normalize
from unfused.audio.samples import Windows
from unfused.config import AudioConfig
from unfused.config.choices import kinds, plugin
from unfused.models import encoders
from unfused.models.clip_encoder import ClipEncoder
from unfused.store import Folder

ROOM = "models.encoders"


def small(kind: str = "audio_ntt") -> ClipEncoder:
    torch.manual_seed(0)
    settings = plugin(ROOM, kind).Config(embedding_dim=16)
    return ClipEncoder(AudioConfig(), settings, mean=-8.0, std=3.0).eval()


def windows() -> Windows[torch.Tensor]:
    """Of two clips."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(-9000, 9000, (4, 15200), dtype=torch.int16, generator=generator)
    return Windows(samples, torch.tensor([1, 3]))


@pytest.mark.parametrize("kind", kinds(ROOM))
def test_every_kind_says_the_same_layers_before_and_after_it_is_made(kind):
    settings = plugin(ROOM, kind).Config()
    made = encoders.build(settings, 64)
    assert settings.kind == kind
    assert settings.layers == made.layers and made.layers[-1] == "last"
    assert made.width("last") == made.embedding_dim == settings.embedding_dim


@pytest.mark.parametrize("kind", kinds(ROOM))
def test_a_saved_encoder_says_its_kind_and_comes_back_as_it_was(kind, tmp_path):
    saved, folder = small(kind), Folder.of(tmp_path)
    saved.save(folder)
    assert folder.read_json("encoder.json")["encoder"]["kind"] == kind
    loaded = ClipEncoder.load(folder).eval()
    assert type(loaded.encoder) is type(saved.encoder)
    with torch.inference_mode():
        assert torch.equal(loaded.embed(windows()), saved.embed(windows()))


def test_a_file_without_a_kind_is_the_one_that_there_was(tmp_path):
    saved, folder = small(), Folder.of(tmp_path)
    saved.save(folder)
    settings = folder.read_json("encoder.json")
    del settings["encoder"]["kind"]
    folder.write("encoder.json", json.dumps(settings).encode())
    with torch.inference_mode():
        assert torch.equal(ClipEncoder.load(folder).eval().embed(windows()), saved.embed(windows()))


def test_a_kind_that_is_not_there_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"there is no 'protocol'; choose one of audio_ntt"):
        plugin(ROOM, "protocol")


def test_an_objective_may_normalise_by_itself():
    model, samples = small(), windows().samples
    spectrogram = model.spectrogram(samples)
    with torch.inference_mode():
        mine = model.encode_normalized(Normalize(-8.0, 3.0)(spectrogram)).clip
        assert torch.equal(mine, model.encode(spectrogram).clip)
        other = model.encode_normalized(Normalize(0.0, 1.0)(spectrogram)).clip
    assert not torch.allclose(mine, other)


@pytest.mark.parametrize("kind", kinds(ROOM))
def test_what_is_used_for_inference_embeds_every_layer_alike(kind):
    model = small(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = model.for_inference()
    with torch.inference_mode():
        for layer in model.encoder.layers:
            found, wanted = fast.embed(windows(), layer), model.embed(windows(), layer)
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
