"""Encoders of transformers, by AutoModel and the feature extractor that lies beside them.

The rule of this file: weights come from safetensors, code from transformers alone. Frames that
cover nothing of the clip, because its extractor pads it, are not pooled.

Axes: W windows, S samples, T frames, D embedding.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfused.audio.samples import INT16_SCALE
from unfused.store import Folder
from unfused.teachers.place import Place, slug, teacher_digest
from unfused.teachers.protocol import Outside, TeacherFacts
from unfused.teachers.windows import Windowed

if TYPE_CHECKING:
    import torch

WAVES = (
    "data2vec-audio",
    "hubert",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-conformer",
    "wavlm",
)
"""Types of model that take samples of any length and give frames."""
WHISPER, AST, CLAP = "whisper", "audio-spectrogram-transformer", "clap"
PARTS = {WHISPER: "encoder", CLAP: "audio_model"}
"""The part of a model that hears, where it is not all of it."""
MASK = "masked_spec_embed"
"""A weight that only training has a use for."""
CONFIG, EXTRACTOR = "config.json", "preprocessor_config.json"
FILES = ("*.json", "*.safetensors", "README.md")
"""What is fetched from the hub."""
LAYER = re.compile(r"^(?P<name>.+)@(?P<layer>\d+|mean|last)$")
AST_FRAME, AST_HOP = 0.025, 0.01
"""Seconds of a frame of log-mel and between frames (Kaldi's)."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`."""
    if find_spec("transformers") is None:
        raise place.missing("transformers")
    found = LAYER.match(rest)
    name, layer = (found["name"], found["layer"]) if found else (rest, "last")
    folder = _folder(name, place)
    config, extractor = _settings(folder, place)
    weights = _weights(folder, place)
    kind = config.get("model_type", "")
    if kind not in (*WAVES, WHISPER, AST, CLAP):
        raise place.refuse(
            f"transformers' {kind!r} is no encoder of sound that is known here; use one of"
            f" {', '.join((*WAVES, WHISPER, AST, CLAP))}, or export it to ONNX."
        )
    width, num_layers = _size(config, kind)
    _check_layer(layer, num_layers, kind, place)
    rate = extractor.get("sampling_rate", 16000)
    facts = TeacherFacts(
        kind="hf",
        name=slug(Path(name).name + ("" if layer == "last" else f"-{layer}")),
        source=place.spec,
        sample_rate=rate,
        window_seconds=_window(kind, extractor),
        min_samples=_least(config, kind),
        license=_license(folder),
        layer=layer,
        embedding_dim=2 * width,
    )
    files = [folder / CONFIG, folder / EXTRACTOR, *weights]
    return Outside(Folder.of(folder), teacher_digest(files, facts), facts)


def _folder(name: str, place: Place) -> Path:
    """The model's files on this machine, fetched from the hub where they are not."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path.absolute()
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise place.refuse(f"there is no folder {name!r}; name one, or a model of the hub.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise place.refuse(
            f"there is no folder {name!r}, and the hub gives no model of that name ({reason}); with"
            " a network fetch it once, or name a folder that has it."
        ) from None


def _settings(folder: Path, place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = json.loads((folder / CONFIG).read_text())
        return config, json.loads((folder / EXTRACTOR).read_text())
    except (OSError, ValueError):
        raise place.refuse(
            f"{folder} has no {CONFIG} and {EXTRACTOR}; save the model and its feature extractor"
            " there with save_pretrained."
        ) from None


def _weights(folder: Path, place: Place) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise place.refuse(
            f"{folder} has no *.safetensors, and other files of weights would be unpickled; save"
            " the model again with save_pretrained(..., safe_serialization=True)."
        )
    return found


def _size(config: dict[str, Any], kind: str) -> tuple[int, int]:
    """Width of a frame, and how many layers there are."""
    if kind == WHISPER:
        return config["d_model"], config["encoder_layers"]
    if kind == CLAP:
        audio = config["audio_config"]
        return audio["hidden_size"], sum(audio["depths"])
    return config["hidden_size"], config["num_hidden_layers"]


def _check_layer(layer: str, num_layers: int, kind: str, place: Place) -> None:
    if kind == CLAP and layer != "last":
        raise place.refuse("layers of a CLAP have several widths; name it without @.")
    if layer.isdigit() and int(layer) > num_layers:
        raise place.refuse(
            f"it has layers 0 (before the first one) to {num_layers}; name one of these, or @mean."
        )


def _window(kind: str, extractor: dict[str, Any]) -> float | None:
    """Seconds that it takes at most."""
    if kind == WHISPER:
        return float(extractor.get("chunk_length", 30))
    if kind == AST:
        return AST_FRAME - AST_HOP + AST_HOP * extractor.get("max_length", 1024)
    if kind == CLAP:
        return float(extractor.get("max_length_s", 10))
    return None


def _least(config: dict[str, Any], kind: str) -> int:
    """Samples of the shortest clip that it is given: two frames; others pad by themselves."""
    if kind not in WAVES:
        return round(AST_FRAME * 16000)
    size, step = 1, 1
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        size += (kernel - 1) * step
        step *= stride
    return size + step


def _license(folder: Path) -> str:
    """What the card says in its head."""
    card = folder / "README.md"
    found = card.is_file() and re.search(r"^license:\s*(\S+)", card.read_text(), re.MULTILINE)
    return found[1] if found else ""


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """See `unfused.teachers.files`; weights in other forms than safetensors stay where they are."""
    names = [info.path.removeprefix(f"{folder.path}/") for info in folder.files()]
    return [n for n in names if any(fnmatch(n, pattern) for pattern in FILES)]


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> Windowed:
    """See `unfused.teachers.load`.

    Raises:
        ConfigError: transformers is not installed, or cannot make the model.
    """
    place = Place(facts.source)
    try:
        from transformers import AutoFeatureExtractor
    except ImportError:
        raise place.missing("transformers") from None
    model = _model(str(folder.local), place)
    extractor = AutoFeatureExtractor.from_pretrained(str(folder.local), local_files_only=True)
    kind = model.config.model_type
    encoder = getattr(model, PARTS[kind]) if kind in PARTS else model
    covered = _frames_of(kind, model, extractor)
    run = _Run(encoder.to(device).eval(), extractor, facts, device, covered)
    mixes = kind not in WAVES or bool(getattr(extractor, "return_attention_mask", False))
    assert facts.embedding_dim is not None
    width = facts.embedding_dim // 2
    return Windowed(facts, run, width, device.type, mixes, padded_to=facts.longest or 0)


def _model(folder: str, place: Place) -> Any:
    """The model in float32, with all of its encoder's weights."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    model, told = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    part = PARTS.get(model.config.model_type, "")
    missing = [name for name in told["missing_keys"] if name.startswith(part) and MASK not in name]
    if missing:
        raise place.refuse(
            f"its files lack {len(missing)} tensors of the encoder ({sorted(missing)[0]}, ...);"
            " save the whole model again with save_pretrained."
        )
    return model


Covered = Callable[[np.ndarray, int], np.ndarray]
"""Of frames (T, D), those that cover something of a clip of so many samples."""


def _frames_of(kind: str, model: Any, extractor: Any) -> Covered:
    if kind in WAVES:
        return lambda rows, size: rows[: int(model._get_feat_extract_output_lengths(size))]
    if kind == WHISPER:
        step = 2 * extractor.hop_length
        return lambda rows, size: rows[: max(1, math.ceil(size / step))]
    if kind == AST:
        return _AstFrames(model.config, extractor.sampling_rate)
    return lambda rows, size: rows


@dataclass(frozen=True)
class _AstFrames:
    """Patches lie band after band, behind two tokens that stand for the whole window."""

    config: Any
    rate: int

    def __call__(self, rows: np.ndarray, size: int) -> np.ndarray:
        patch, step = self.config.patch_size, self.config.time_stride
        columns = (self.config.max_length - patch) // step + 1
        frames = 1 + (size / self.rate - AST_FRAME) / AST_HOP
        covered = min(columns, max(1, math.ceil((frames - patch) / step) + 1))
        grid = rows[2:].reshape(-1, columns, rows.shape[1])
        return grid[:, :covered].reshape(-1, rows.shape[1])


@dataclass(frozen=True)
class _Run:
    """Windows (S,) to their frames (T, D)."""

    encoder: Any
    extractor: Any
    facts: TeacherFacts
    device: Any
    covered: Covered

    def __call__(self, windows: list[np.ndarray]) -> Sequence[np.ndarray]:
        import torch

        waves = [wave.astype(np.float32) * np.float32(INT16_SCALE) for wave in windows]
        more = {"padding": True} if self.facts.window_seconds is None else {}
        given = self.extractor(
            waves, sampling_rate=self.facts.sample_rate, return_tensors="pt", **more
        )
        if "is_longer" in given:  # Of short clips CLAP's extractor would say it of one by chance.
            given["is_longer"] = torch.zeros_like(given["is_longer"])
        with torch.inference_mode():
            found = self.encoder(**given.to(self.device), output_hidden_states=True)
        rows = self._layer(found).float().cpu().numpy()
        return [self.covered(one, len(wave)) for one, wave in zip(rows, windows, strict=True)]

    def _layer(self, found: Any) -> Any:
        """The layer that is read, (W, T, D)."""
        import torch

        if self.facts.layer == "mean":
            return torch.stack(found.hidden_states).mean(0)
        if self.facts.layer != "last":
            return found.hidden_states[int(self.facts.layer)]
        last = found.last_hidden_state
        return last if last.ndim == 3 else last.flatten(2).transpose(1, 2)
