"""Embedding and scoring go through every clip once, however many workers share them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from conftest import write_part
from unfused import shards, training
from unfused.config import EmbedConfig, EncoderConfig, EvaluateConfig
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.stages.embed import EmbedJob
from unfused.stages.evaluate import EvaluateJob, predict
from unfused.store import Artifact, Folder

CLASSES = ["a", "b", "c"]


@pytest.fixture
def part(tmp_path):
    rng = np.random.default_rng(5)
    clips = [rng.integers(-9000, 9000, rng.integers(4000, 30000), np.int16) for _ in range(11)]
    return write_part(tmp_path / "part", clips, per_shard=4)


@pytest.fixture
def encoder(part) -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder.for_part(part.facts, EncoderConfig(embedding_dim=32)).eval()


@pytest.fixture
def workers(monkeypatch):
    """`workers(3)`: three workers, one after the other in this process."""
    monkeypatch.setattr(training.Worker, "wait", lambda self: None)
    cpu = torch.device("cpu")
    return lambda world: [
        training.Worker(rank, world, cpu, lambda event: None) for rank in range(world)
    ]


@pytest.mark.parametrize("layer", ["last", "block2"])
@pytest.mark.parametrize("world", [1, 3, 13])
def test_workers_embed_every_clip_once_and_as_one_of_them_would(
    ray_cluster, part, encoder, workers, tmp_path, world, layer
):
    teacher, out = Folder.of(tmp_path / "teacher"), Folder.of(tmp_path / "out")
    encoder.save(teacher)
    config = EmbedConfig(batch_size=3, num_crops=2, precision="float32", layer=layer)
    for worker in workers(world):
        job = EmbedJob("embed", part, Artifact(teacher, "teacher", {}), config, out)
        facts = job.run(worker)
    assert facts["num_clips"] == 11
    files = sorted((tmp_path / "out").glob("embeddings-*.parquet"))
    tables = [pq.read_table(file) for file in files]
    assert np.concatenate([table["clip"] for table in tables]).tolist() == list(range(11))
    found = np.concatenate([np.stack(table["embedding"].to_numpy()) for table in tables])
    windows = shards.windows_of(part, np.arange(11), encoder.audio.crop_samples, 2)
    with torch.inference_mode():
        expected = encoder.embed(torch.from_numpy(windows), layer).numpy()
    assert found.shape == (11, facts["embedding_dim"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world", [1, 3, 13])
def test_workers_score_every_clip_once_and_as_one_of_them_would(
    ray_cluster, part, encoder, workers, tmp_path, world
):
    folder = Folder.of(tmp_path / "classifier")
    encoder.save(folder)
    for repeat in range(2):
        head = LinearClassifier(32, len(CLASSES))
        torch.nn.init.normal_(head.linear.weight)
        ClipClassifier.save_head(folder, repeat, head, CLASSES, "encoder")
    samples = encoder.audio.crop_samples
    facts = {"num_repeats": 2, "num_crops": 2, "crop_samples": samples}
    classifiers = dict.fromkeys(("evaluate/x", "evaluate/y"), Artifact(folder, "x", facts))
    job = EvaluateJob(part, classifiers, EvaluateConfig(batch_size=4))
    tables = [job.run(worker) for worker in workers(world)]
    windows = torch.from_numpy(shards.windows_of(part, np.arange(11), samples, 2))
    expected = predict(ClipClassifier.load_all(folder, 2), windows).numpy()
    assert expected.shape == (11, 2) and len(np.unique(expected)) > 1
    for node in classifiers:
        # What each worker has not seen is 0, so that the sum over workers is the whole.
        np.testing.assert_array_equal(sum(table[node] for table in tables), expected)
