"""Embed: stream the target's clips through the teacher with a pool of actors.

Axes: B clips, C windows of a clip, S samples, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unfused import runtime, shards
from unfused.config import EmbedConfig
from unfused.events import Progress
from unfused.models.clip_encoder import ClipEncoder
from unfused.stages import Build, Facts, pool_needs
from unfused.store import Folder

needs = pool_needs


def run(builds: Sequence[Build], cluster: runtime.Cluster) -> list[Facts]:
    return [_embed(build, cluster) for build in builds]


def _embed(build: Build, cluster: runtime.Cluster) -> Facts:
    config: EmbedConfig = build.config["embed"]  # type: ignore[assignment]
    clips, teacher = build.inputs["clips"], build.inputs["teacher"]
    total = shards.num_clips(clips)
    settings = {"folder": teacher.folder, "out": build.out, "config": config}
    windows = partial(
        shards.even_windows, num_samples=crop_samples(teacher.folder), num_crops=config.num_crops
    )
    results = shards.map_with_actors(
        shards.slices(clips, range(total), config.batch_size),
        windows,
        Embedder,
        settings,
        num_gpus=min(1, runtime.gpus_per_worker(cluster.options, cluster.hardware)),
    )
    done, dim = 0, 0
    for row in results:
        done, dim = done + int(row["count"]), int(row["dim"])
        cluster.stream.emit(Progress(build.node, done, total))
    return {"num_clips": done, "embedding_dim": dim, "layer": config.layer}


def crop_samples(encoder: Folder) -> int:
    """Length of the windows that a saved encoder was trained on."""
    audio = encoder.read_json("encoder.json")["audio"]
    return round(audio["crop_seconds"] * audio["sample_rate"])


class Embedder:
    """An actor that embeds blocks of windows and writes them as Parquet.

    A retried block overwrites its own file, so nothing is ever twice.
    """

    def __init__(self, folder: Folder, out: Folder, config: EmbedConfig) -> None:
        runtime.prepare_process()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.encoder = ClipEncoder.load(folder).to(self.device).eval()
        self.out, self.config = out, config
        out.filesystem.create_dir(out.path, recursive=True)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        windows = torch.from_numpy(batch["samples"].copy()).to(self.device)
        with torch.inference_mode(), runtime.autocast(self.device, self.config.precision):
            embedding = self.encoder.embed(windows, self.config.layer).cpu().numpy()
        write_embeddings(self.out, batch["clip"], embedding)
        return {"count": np.array([len(embedding)]), "dim": np.array([embedding.shape[1]])}


def write_embeddings(folder: Folder, clip: np.ndarray, embedding: np.ndarray) -> None:
    values = pa.FixedSizeListArray.from_arrays(
        pa.array(embedding.reshape(-1)), embedding.shape[1]
    )
    table = pa.table({"clip": pa.array(clip), "embedding": values})
    target = f"{folder.path}/embeddings-{int(clip.min()):012d}.parquet"
    with folder.filesystem.open_output_stream(target) as sink:
        pq.write_table(table, sink, compression="NONE", use_dictionary=False)
