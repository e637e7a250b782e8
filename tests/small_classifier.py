"""Classifiers with random weights, as artifacts of their stage and as models, for tests of what
uses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from unfused import data, inference
from unfused.audio.samples import Cut, Windows
from unfused.config import AudioConfig
from unfused.inference.card import card
from unfused.inference.folder import License, Measured, ModelFacts
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import on_device
from unfused.scorers import ScorerFacts
from unfused.store import Folder

CLASSES = ["C# minor", "dog", "label"]
CROP, POOLING = AudioConfig().crop_samples, "attention"


def random_classifier(folder: Folder, embedding_dim: int = 16) -> Folder:
    """A finetune artifact as the stage writes it, with random weights and two draws."""
    torch.manual_seed(0)
    settings = AudioNTTConfig(embedding_dim=embedding_dim)
    encoder = ClipEncoder(AudioConfig(), settings, mean=-8.0, std=4.0)
    encoder.save(folder, "start")
    for repeat in range(2):
        head = LinearClassifier(embedding_dim, len(CLASSES), power=0.5)
        torch.nn.init.normal_(next(head.parameters()), std=1.0)
        ClipClassifier.save_head(folder, repeat, head, CLASSES, "start")
    return folder


def scorer_facts(num_crops: int | str, num_repeats: int = 2) -> ScorerFacts:
    return ScorerFacts(
        kind="linear",
        classes=CLASSES,
        num_repeats=num_repeats,
        num_labels=9,
        num_validation_labels=0,
        num_crops=num_crops,
        crop_samples=CROP,
        pooling=POOLING,
    )


def model_facts(num_crops: int | str = "auto") -> ModelFacts:
    measured = Measured(
        split="test",
        num_clips=90,
        chance=1 / 3,
        accuracy=[0.75, 0.5],
        balanced_accuracy=[0.7, 0.46],
        macro_f1=[0.7, 0.5],
        own_accuracy=0.75,
        cross_validated=0.625,
    )
    return ModelFacts(
        name="noises",
        arm="unfused",
        sample_rate=16000,
        durations=[0.5, 0.9, 1.0, 1.1, 2.0],
        scorer=scorer_facts(num_crops, num_repeats=1),
        measured=measured,
        licenses=[License(of="ears", license="Apache-2.0")],
        lineage={"run": "0123", "task": "noises.csv"},
    )


def write_model(folder: Folder, classifier: Folder, num_crops: int | str = "auto") -> Folder:
    """A model's folder, as a run leaves it."""
    facts = model_facts(num_crops)
    inference.write(folder, facts, classifier, card(facts))
    return folder


def tones(length: int, count: int = 3) -> np.ndarray:
    """int16 clips (B, S) whose pitch changes all the time, so that each window sounds different."""
    rng = np.random.default_rng(length)
    time = np.arange(length) / 16000
    pitch = rng.uniform(200, 800, (count, 1)) * (1 + time)
    wave = np.sin(2 * np.pi * pitch * time) * rng.uniform(0.2, 0.9, (count, 1))
    return (wave * 32767).astype(np.int16)


def evaluated(
    clips: np.ndarray, folder: Folder, num_crops: int | str, tmp_path: Path
) -> np.ndarray:
    """Probabilities (B, N) by the way of the evaluation: shards, windows, classifier."""
    place = Folder.of(tmp_path / f"part-{clips.shape[1]}")
    writer = data.ShardWriter(place, "part-00000.parquet")
    for number, clip in enumerate(clips):
        writer.add(str(number), clip)
    writer.close()
    piece = data.Slice(place, "part-00000.parquet", 0, len(clips), 0)
    block = data.even_block(piece, Cut(CROP, num_crops))
    windows = Windows(block["samples"], np.bincount(block["clip"]))
    windows = on_device(windows, torch.device("cpu"))
    return ClipClassifier.load(folder).predict(windows, POOLING).numpy()
