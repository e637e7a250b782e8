"""Embedding and scoring go through every clip once, however many workers share them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from conftest import write_part
from two_ranks import WORLD, on_two_ranks
from unfused import data, training
from unfused.audio.samples import Cut, Windows
from unfused.config import EmbedConfig, EvaluateConfig
from unfused.events import Note
from unfused.jobs.embed import EmbedJob
from unfused.jobs.evaluate import EvaluateJob
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import on_device
from unfused.scorers import ScorerFacts
from unfused.store import Artifact, Folder

CLASSES = ["a", "b", "c"]


@pytest.fixture
def part(tmp_path):
    rng = np.random.default_rng(5)
    clips = [rng.integers(-9000, 9000, rng.integers(4000, 24000), np.int16) for _ in range(11)]
    return write_part(tmp_path / "part", clips, per_shard=4)


@pytest.fixture
def encoder(part) -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder.for_part(part.facts, AudioNTTConfig(embedding_dim=32)).eval()


@pytest.fixture
def workers(monkeypatch):
    """`workers(3)`: three workers, one after the other in this process."""
    monkeypatch.setattr(training.Worker, "wait", lambda self: None)
    cpu = torch.device("cpu")
    return lambda world: [
        training.Worker(rank, world, cpu, lambda event: None) for rank in range(world)
    ]


def _windows(part: Artifact, num_samples: int) -> Windows[torch.Tensor]:
    """All clips of a part in as many windows as cover each."""
    clips = np.arange(data.num_clips(part))
    return on_device(data.windows_of(part, clips, Cut(num_samples)), torch.device("cpu"))


def _embeddings(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Clips (N,) and embeddings (N, D) of all files in their order."""
    tables = [pq.read_table(file) for file in sorted(folder.glob("embeddings-*.parquet"))]
    clips = np.concatenate([table["clip"] for table in tables])
    return clips, np.concatenate([np.stack(table["embedding"].to_numpy()) for table in tables])


@pytest.mark.parametrize("layer", ["last", "block2"])
@pytest.mark.parametrize("world", [1, 3, 13])
def test_workers_embed_every_clip_once_and_as_one_of_them_would(
    ray_cluster, part, encoder, workers, tmp_path, world, layer
):
    teacher, out = Folder.of(tmp_path / "teacher"), Folder.of(tmp_path / "out")
    encoder.save(teacher)
    config = EmbedConfig(batch_size=3, precision="float32", layer=layer)
    for worker in workers(world):
        job = EmbedJob("embed", part, Artifact(teacher, "teacher", None), config, out)
        width = job.run(worker).width
    clips, found = _embeddings(tmp_path / "out")
    assert clips.tolist() == list(range(11))
    with torch.inference_mode():
        expected = encoder.embed(_windows(part, encoder.audio.crop_samples), layer).numpy()
    assert found.shape == (11, width)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_embeddings_in_bfloat16_are_those_in_float32_but_for_rounding(
    ray_cluster, part, encoder, workers, tmp_path
):
    teacher = Folder.of(tmp_path / "teacher")
    encoder.save(teacher)
    rows = {}
    for precision in ("float32", "bfloat16"):
        config = EmbedConfig(batch_size=8, num_crops=1, precision=precision)
        out = Folder.of(tmp_path / precision)
        EmbedJob("embed", part, Artifact(teacher, "teacher", None), config, out).run(*workers(1))
        rows[precision] = _embeddings(tmp_path / precision)[1]
        assert rows[precision].dtype == np.float32
    full, low = (torch.from_numpy(found - rows["float32"].mean(0)) for found in rows.values())
    assert torch.cosine_similarity(full, low).min() > 0.99
    assert not torch.equal(full, low)


def _facts(encoder: ClipEncoder) -> ScorerFacts:
    return ScorerFacts(
        kind="linear",
        classes=CLASSES,
        num_repeats=2,
        num_labels=3,
        num_validation_labels=0,
        num_crops="auto",
        crop_samples=encoder.audio.crop_samples,
        pooling="attention",
    )


def _head(part: Artifact, encoder: ClipEncoder) -> LinearClassifier:
    """Random weights whose scores are level on average, so that clips fall in several classes."""
    head = LinearClassifier(encoder.settings.embedding_dim, len(CLASSES))
    torch.nn.init.normal_(head.linear.weight)
    windows = _windows(part, encoder.audio.crop_samples)
    with torch.no_grad():
        head.linear.bias -= head(encoder.eval().embed(windows)).mean(0)
    return head


@pytest.fixture
def classifier(part, encoder, tmp_path) -> Artifact:
    """Two draws on one encoder."""
    folder = Folder.of(tmp_path / "classifier")
    encoder.save(folder)
    for repeat in range(2):
        head = _head(part, encoder)
        ClipClassifier.save_head(folder, repeat, head, CLASSES, "encoder")
    return Artifact(folder, "classifier", _facts(encoder))


@pytest.fixture
def tuned(part, tmp_path) -> Artifact:
    """Two draws with an encoder each."""
    folder = Folder.of(tmp_path / "tuned")
    torch.manual_seed(1)
    for repeat in range(2):
        encoder = ClipEncoder.for_part(part.facts, AudioNTTConfig(embedding_dim=16))
        name = f"encoder-{repeat:02d}"
        encoder.save(folder, name)
        ClipClassifier.save_head(folder, repeat, _head(part, encoder), CLASSES, name)
    return Artifact(folder, "classifier", _facts(encoder))


def _expected(part: Artifact, classifier: Artifact) -> np.ndarray:
    """Each draw's classifier, loaded by itself, on all clips: (N, R)."""
    windows = _windows(part, classifier.facts.crop_samples)
    draws = [ClipClassifier.load(classifier.folder, repeat) for repeat in range(2)]
    columns = [draw.predict(windows, classifier.facts.pooling).argmax(1) for draw in draws]
    return torch.stack(columns, 1).int().numpy()


def _certainty(part: Artifact, classifier: Artifact) -> np.ndarray:
    """The probability of each draw's own prediction: (N, R)."""
    windows, pooling = _windows(part, classifier.facts.crop_samples), classifier.facts.pooling
    draws = [ClipClassifier.load(classifier.folder, repeat) for repeat in range(2)]
    return np.stack([draw.predict(windows, pooling).amax(1).numpy() for draw in draws], 1)


@pytest.mark.parametrize("world", [1, 3, 13])
def test_workers_score_every_clip_once_and_as_one_of_them_would(
    ray_cluster, part, classifier, tuned, workers, world
):
    classifiers = {"evaluate/x": classifier, "evaluate/y": tuned}
    job = EvaluateJob(part, classifiers, EvaluateConfig(batch_size=4))
    tables = [job.run(worker) for worker in workers(world)]
    for node, one in classifiers.items():
        expected = _expected(part, one)
        assert expected.shape == (11, 2) and all(len(set(draw)) > 1 for draw in expected.T)
        # What each worker has not seen is 0, so that the sum over workers is the whole.
        np.testing.assert_array_equal(sum(table[node].ids for table in tables), expected)
        sure = sum(table[node].probability for table in tables)
        np.testing.assert_allclose(sure, _certainty(part, one), rtol=1e-4)


def _score(rank: int, job: EvaluateJob) -> torch.Tensor:
    def blocks(part, rows, cut, clips_per_block):
        for piece in data.slices(part, rows, clips_per_block):
            block = data.even_block(piece, cut)
            clip, counts = np.unique(block["clip"], return_counts=True)
            yield clip, Windows(block["samples"], counts)

    data.even_blocks = blocks  # No Ray in this process.
    worker = training.Worker(rank, WORLD, torch.device("cpu"), lambda event: None)
    return torch.from_numpy(job.run(worker)["evaluate/x"].ids)


@pytest.mark.parametrize("count", [1, 7])
def test_all_workers_have_every_prediction_also_where_one_had_no_clip(
    part, classifier, tmp_path, count
):
    rng = np.random.default_rng(6)
    clips = [rng.integers(-9000, 9000, 20000, np.int16) for _ in range(count)]
    some = write_part(tmp_path / "some", clips)
    job = EvaluateJob(some, {"evaluate/x": classifier}, EvaluateConfig(batch_size=2))
    (tmp_path / "ranks").mkdir()
    for found in on_two_ranks(_score, tmp_path / "ranks", job):
        np.testing.assert_array_equal(found.numpy(), _expected(some, classifier))


def test_what_several_windows_of_a_clip_cost_is_told_once(ray_cluster, part, encoder, tmp_path):
    teacher, told = Folder.of(tmp_path / "teacher"), []
    encoder.save(teacher)
    worker = training.Worker(0, 1, torch.device("cpu"), told.append)
    for num_crops in (1, "auto", "auto"):
        config, out = EmbedConfig(num_crops=num_crops), Folder.of(tmp_path / "out")
        EmbedJob("embed", part, Artifact(teacher, "teacher", None), config, out).run(worker)
    (note,) = [event.text for event in told if isinstance(event, Note)]
    mean = _windows(part, encoder.audio.crop_samples).counts.float().mean()
    assert f"{mean:.1f} windows of 0.95 s" in note and mean > 1
