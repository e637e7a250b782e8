"""Small classifiers with random weights, as stages leave them, and real clips of any length."""

from __future__ import annotations

import csv
import typing
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn

from unfused import probing, scorers, teachers
from unfused.audio.decode import decode
from unfused.audio.samples import Cut
from unfused.config import AudioConfig, EncoderConfig
from unfused.config.choices import default
from unfused.config.sections import Feature
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.scorers import ScorerFacts
from unfused.scorers.floor import Config as FloorConfig
from unfused.scorers.floor import fit
from unfused.store import Folder
from unfused.teachers import TeacherFacts

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
    head = lively(encoder)
    encoder.save(Folder.of(folder), "encoder-00")
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


def lively(encoder: ClipEncoder) -> LinearClassifier:
    """Batch norms of an encoder and a head as if something had been learned: scores of the order
    of 1 that differ by clip."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((24, encoder.audio.crop_samples)).cumsum(1)
    noise[::2] = np.diff(noise[::2], axis=1, prepend=0)
    noise = noise / np.abs(noise).max(1, keepdims=True) * rng.uniform(10, 30000, (24, 1))
    samples = torch.from_numpy(noise.astype(np.int16))
    head = LinearClassifier(encoder.embedding_dim, len(CLASSES), power=0.5)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        encoder.train()(samples)
        nn.init.normal_(head.linear.weight)
        scores = head(encoder.eval().embed_windows(samples))
        head.linear.weight /= scores.std(0, keepdim=True).T
        head.linear.bias.copy_(-(scores / scores.std(0)).mean(0))
    return head


def recordings(shared_data: Path, count: int = 4) -> list[np.ndarray]:
    """Real int16 clips: digits of half a second, sounds of five with silence in them, and of these
    parts about as long as a window, and one of fourteen seconds."""
    found = []
    for table in ("fsdd/digits.csv", "esc10/sounds.csv"):
        place = shared_data / table
        rows = list(csv.DictReader(place.open()))
        some = rows[:: max(1, len(rows) // count)][:count]
        found += [decode((place.parent / row["path"]).read_bytes(), RATE, 60.0) for row in some]
    last = found[-1]
    return [
        *found,
        last[:200],
        last[:1],
        last[:16000],
        last[:16720],
        last[:16721],
        joined(found[2:6]),
    ]


def joined(clips: list[np.ndarray]) -> np.ndarray:
    """All of them one after the other, with silence between."""
    pause = np.zeros(RATE, np.int16)
    return np.concatenate([part for clip in clips for part in (clip, pause)])


def floor(folder: Path, clips: list[np.ndarray]) -> ScorerFacts:
    """The floor fitted to clips that take turns to be of each class."""
    labels = np.arange(len(clips)) % len(CLASSES)
    fit(FloorConfig(), clips, labels, len(CLASSES), RATE).save(Folder.of(folder), 0)
    return ScorerFacts(
        kind="floor",
        classes=CLASSES,
        num_repeats=1,
        num_labels=len(clips),
        num_validation_labels=0,
    )


TEACHERS = typing.get_args(Feature)
"""That a pool has beside an encoder."""


def pool(folder: Path, clips: list[np.ndarray]) -> ScorerFacts:
    """A pool as the stage `combine` leaves it: a linear probe and neighbours of every teacher,
    which know parts of clips that take turns to be of each class."""
    linear(folder / "own", "mobile_net")
    parts = [clips[-1][begin:][: 9000 + 300 * n] for n, begin in enumerate(range(0, 180000, 7000))]
    parts = [part for part in parts if part.std() > 1]  # of equals it is open who is nearest
    ids = np.arange(len(parts)) % len(CLASSES)
    told = np.eye(len(CLASSES), dtype=np.float32)[ids]
    arrays, weights = {}, {}
    for number, (name, facts) in enumerate(teachers_of(folder).items()):
        rows = teachers.load(Folder.of(folder / name), facts, torch.device("cpu")).embed(parts)
        probe = probing.fit(rows, ids, len(CLASSES), probing.Folds(())).probe
        near = probing.Neighbours.of(rows, 5)
        arrays |= {f"{name}.{key}": value for key, value in probe.arrays().items()}
        arrays[f"{name}/neighbours.said"] = near.spread(told).astype(np.float16)
        Folder.of(folder).write(f"{name}.safetensors", save(near.arrays()))
        weights |= {name: 0.2 + 0.1 * number, f"{name}/neighbours": 0.4}
    Folder.of(folder).write("probes-00.safetensors", save(arrays))
    Folder.of(folder).write_json("draw-00.json", {"weights": weights, "sample_rate": RATE})
    return ScorerFacts(
        kind="probes",
        classes=CLASSES,
        num_repeats=1,
        num_labels=len(parts),
        num_validation_labels=0,
    )


def teachers_of(folder: Path) -> dict[str, TeacherFacts]:
    """The encoder in `own` and the features, by name; what each says of itself is written."""
    cut = Cut(AudioConfig().crop_samples)
    own = teachers.own("own", RATE, cut, "last").model_copy(update={"file": "encoder-00"})
    found = [own, *(teachers.read(spec).facts.settled(RATE) for spec in TEACHERS)]
    for facts in found:
        told = facts.model_dump(mode="json")
        Folder.of(folder / facts.name).write_json("teacher.json", told)
    return {facts.name: facts for facts in found}


def expected(folder: Path, facts: ScorerFacts, clips: list[np.ndarray]) -> np.ndarray:
    """The probabilities (B, N) that the scorer itself gives."""
    scorer, cpu = scorers.load(Folder.of(folder), facts), torch.device("cpu")
    scores = scorer.scores(scorers.given(facts, clips, cpu))
    return scores[0].softmax(1).numpy()
