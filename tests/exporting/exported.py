"""Small classifiers with random weights, as their stages leave them, and real clips of many lengths."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn

from unfused.audio.decode import decode
from unfused.config import AudioConfig, EncoderConfig
from unfused.config.choices import default
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.scorers import ScorerFacts
from unfused.store import Folder

RATE = 16000
CLASSES = ["dog", "sneeze", "räv"]


def linear(
    folder: Path, kind: str, num_crops: int | str = "auto", pooling: str = "mean"
) -> ScorerFacts:
    """An encoder of a kind with a head, saved; and what its stage says of it."""
    torch.manual_seed(1)
    audio = AudioConfig().settled()
    settings = default(EncoderConfig, kind).model_copy(update={"embedding_dim": 64})
    encoder = ClipEncoder(audio, settings, mean=-8.0, std=3.0)
    lively(encoder)
    encoder.save(Folder.of(folder), "encoder-00")
    head = LinearClassifier(64, len(CLASSES), power=0.5)
    nn.init.normal_(head.linear.weight, std=2.0)
    ClipClassifier.save_head(Folder.of(folder), 0, head, CLASSES, "encoder-00")
    return ScorerFacts(
        kind="linear",
        classes=CLASSES,
        num_repeats=1,
        num_labels=6,
        num_validation_labels=0,
        num_crops=num_crops,
        crop_samples=audio.crop_samples,
        pooling=pooling,
    )


def lively(encoder: nn.Module) -> None:
    """Batch norms as if something had been learned, so that embeddings of clips differ."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.2, 1.5)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)


def recordings(shared_data: Path, count: int = 4) -> list[np.ndarray]:
    """Real int16 clips: digits of half a second, sounds of five with silence in them, and of these
    one shorter than a window, one a little longer, and one of twenty seconds."""
    found = []
    for table in ("fsdd/digits.csv", "esc10/sounds.csv"):
        place = shared_data / table
        rows = list(csv.DictReader(place.open()))
        some = rows[:: max(1, len(rows) // count)][:count]
        found += [decode((place.parent / row["path"]).read_bytes(), RATE, 60.0) for row in some]
    last = found[-1]
    return [*found, last[:200], last[:1], last[:16000], last[:16720], last[:16721], joined(found)]


def joined(clips: list[np.ndarray]) -> np.ndarray:
    """All of them one after the other, with silence between."""
    pause = np.zeros(RATE, np.int16)
    return np.concatenate([part for clip in clips for part in (clip, pause)])
