"""Models of transformers as teachers: small random ones, saved as people save them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from unfused import teachers
from unfused.config import ConfigError

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
CONVOLUTIONS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def wav2vec2():
    t = transformers
    return t.Wav2Vec2Model(t.Wav2Vec2Config(**CONVOLUTIONS)), t.Wav2Vec2FeatureExtractor()


def hubert():
    t = transformers
    return t.HubertModel(t.HubertConfig(**CONVOLUTIONS)), t.Wav2Vec2FeatureExtractor()


def wavlm():
    t = transformers
    config = t.WavLMConfig(**CONVOLUTIONS, **LAYER_NORM)
    return t.WavLMModel(config), t.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def whisper():
    t = transformers
    config = t.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        vocab_size=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return t.WhisperModel(config), t.WhisperFeatureExtractor()


def ast():
    t = transformers
    config = t.ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=128,
    )
    return t.ASTModel(config), t.ASTFeatureExtractor(max_length=128)


def clap():
    t = transformers
    audio = {
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [2, 2, 2, 2],
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "projection_dim": 16,
        "enable_fusion": True,
    }
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 100,
    }
    config = t.ClapConfig(audio_config=audio, text_config=text)
    return t.ClapModel(config), t.ClapFeatureExtractor()


FAMILIES = (wav2vec2, hubert, wavlm, whisper, ast, clap)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with a folder for every family."""
    root = tmp_path_factory.mktemp("hf")
    transformers.utils.logging.disable_progress_bar()
    for family in FAMILIES:
        torch.manual_seed(0)
        for part in family():
            part.save_pretrained(root / family.__name__)
    return root


def loaded(spec: str):
    found = teachers.read(spec)
    return found.facts, teachers.load(found.folder, found.facts, torch.device("cpu"))


def noise(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(3000 * rng.standard_normal(n)).astype(np.int16) for n in lengths]


@pytest.mark.parametrize("family", [f.__name__ for f in FAMILIES])
def test_a_clip_does_not_depend_on_those_beside_it(saved, family):
    facts, teacher = loaded(f"hf:{saved / family}")
    waves = noise(4000, 9000, 9000, 30000)
    rows = teacher.embed(waves)
    assert rows.shape == (4, teacher.embedding_dim) == (4, facts.embedding_dim)
    alone = np.concatenate([teacher.embed([wave]) for wave in waves])
    np.testing.assert_allclose(rows, alone, rtol=1e-3, atol=1e-5)
    assert np.ptp(rows, axis=0).max() > 1e-3


def plain(saved: Path, family: str, wave: np.ndarray):
    """What transformers gives for one clip, without this package."""
    folder = str(saved / family)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rate = extractor.sampling_rate
    given = extractor([wave.astype(np.float32) / 32768], sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        if family == "whisper":
            return model.encoder(**given, output_hidden_states=True)
        if family == "clap":
            return model.audio_model(given["input_features"], is_longer=given["is_longer"] & False)
        return model(**given, output_hidden_states=True)


def pooled(frames: torch.Tensor) -> np.ndarray:
    return torch.cat([frames.mean(0), frames.amax(0)]).numpy()


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize(
    ("layer", "choose"),
    [
        ("", lambda found: found.last_hidden_state[0]),
        ("@1", lambda found: found.hidden_states[1][0]),
        ("@mean", lambda found: torch.stack(found.hidden_states).mean(0)[0]),
    ],
)
def test_a_layer_is_the_one_that_transformers_gives(saved, family, layer, choose):
    facts, teacher = loaded(f"hf:{saved / family}{layer}")
    assert facts.name == family + layer.replace("@", "-")
    (wave,) = noise(16000)
    wanted = pooled(choose(plain(saved, family, wave)))
    np.testing.assert_allclose(teacher.embed([wave])[0], wanted, rtol=1e-4, atol=1e-5)


def test_frames_of_whispers_padding_are_not_pooled(saved):
    facts, teacher = loaded(f"hf:{saved / 'whisper'}")
    (wave,) = noise(16000)
    frames = plain(saved, "whisper", wave).last_hidden_state[0]
    assert facts.window_seconds == 30 and len(frames) == 1500
    np.testing.assert_allclose(teacher.embed([wave])[0], pooled(frames[:50]), rtol=1e-4, atol=1e-5)


def test_patches_of_asts_padding_are_not_pooled(saved):
    """0.4 s are 38 frames; patches of 16 every 10 begin at 0, 10, 20 and 30."""
    _, teacher = loaded(f"hf:{saved / 'ast'}")
    (wave,) = noise(6400)
    tokens = plain(saved, "ast", wave).last_hidden_state[0][2:]
    patches = tokens.reshape(12, 12, -1)[:, :4].flatten(0, 1)
    np.testing.assert_allclose(teacher.embed([wave])[0], pooled(patches), rtol=1e-4, atol=1e-5)


def test_clap_is_heard_at_its_own_rate_and_without_chance(saved):
    facts, teacher = loaded(f"hf:{saved / 'clap'}")
    assert (facts.sample_rate, facts.window_seconds) == (48000, 10)
    waves = noise(48000, 24000)
    found = plain(saved, "clap", waves[0]).last_hidden_state[0].flatten(1).T
    rows = [teacher.embed(waves) for _ in range(4)]
    assert all(np.array_equal(rows[0], row) for row in rows[1:])
    np.testing.assert_allclose(rows[0][0], pooled(found), rtol=1e-3, atol=1e-4)


def test_the_digest_is_of_the_weights_and_of_the_layer(saved, tmp_path):
    spec = f"hf:{saved / 'wav2vec2'}"
    digests = {teachers.read(spec + layer).digest for layer in ("", "@1", "@mean")}
    torch.manual_seed(1)
    for part in wav2vec2():
        part.save_pretrained(tmp_path)
    assert len(digests | {teachers.read(f"hf:{tmp_path}").digest}) == 4


def test_the_licence_is_the_cards(saved, tmp_path):
    for part in wav2vec2():
        part.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Card\n")
    assert teachers.read(f"hf:{tmp_path}").facts.license == "apache-2.0"


def test_weights_that_would_be_unpickled_are_refused(saved, tmp_path):
    model, extractor = wav2vec2()
    model.config.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"has no \*\.safetensors, .* would be unpickled; save"):
        teachers.read(f"hf:{tmp_path}")


def test_half_of_the_weights_are_no_teacher(tmp_path):
    from safetensors.torch import load_file, save_file

    for part in wav2vec2():
        part.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    half = {name: value for name, value in weights.items() if "encoder.layers.1." not in name}
    save_file(half, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = teachers.read(f"hf:{tmp_path}")
    with pytest.raises(ConfigError, match=r"lack 16 tensors of the encoder"):
        teachers.load(found.folder, found.facts, torch.device("cpu"))


@pytest.mark.parametrize(
    ("ending", "match"),
    [
        ("wav2vec2@3", r"has layers 0 \(before the first one\) to 2; name one of these, or @mean"),
        ("clap@1", "layers of a CLAP have several widths"),
        ("nothing/here", "there is no folder"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(saved, ending, match):
    with pytest.raises(ConfigError, match=match):
        teachers.read(f"hf:{saved / ending}")


def test_a_model_that_hears_nothing_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"'bert' is no encoder of sound .*; use one of data2vec"):
        teachers.read(f"hf:{tmp_path}")


def test_a_name_of_the_hub_without_network_is_one_sentence(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"the hub gives no model of that name .*; with a net"):
        teachers.read("hf:nobody/has-this-model")


@pytest.mark.parametrize(("library", "spec"), [("transformers", "hf:x"), ("onnxruntime", "onnx:")])
def test_a_library_that_is_not_installed_is_one_sentence(library, spec, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"")
    spec = spec if spec != "onnx:" else f"onnx:{tmp_path / 'x.onnx'}"
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        f"u.find_spec = lambda name: None if name == {library!r} else found(name)\n"
        f"from unfused import teachers; teachers.read({spec!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert f"{library} is not installed; install it with uv pip install" in last
