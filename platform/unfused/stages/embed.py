"""Embed: the target's clips through the teacher, every worker its share of them.

Axes: B clips, C windows of a clip, S samples, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unfused import runtime, shards, training
from unfused.config import EmbedConfig
from unfused.models.clip_encoder import ClipEncoder
from unfused.stages import Build, Facts, training_needs
from unfused.store import Artifact, Folder

needs = training_needs


def run(builds: Sequence[Build], cluster: runtime.Cluster) -> list[Facts]:
    jobs = [
        EmbedJob(
            build.node,
            build.inputs["clips"],
            build.inputs["teacher"],
            build.config["embed"],
            build.out,
        )
        for build in builds
    ]
    return cluster.session.run(jobs)


@dataclass(frozen=True)
class EmbedJob:
    """One teacher. A worker that is replaced writes its files again, so nothing is ever twice."""

    node: str
    clips: Artifact
    teacher: Artifact
    config: EmbedConfig
    out: Folder

    def run(self, worker: training.Worker) -> Facts:
        began = time.perf_counter()
        encoder = ClipEncoder.load(self.teacher.folder).to(worker.device).eval()
        self.out.filesystem.create_dir(self.out.path, recursive=True)
        for clip, windows in worker.even_windows(
            self.clips,
            [self.node],
            num_samples=encoder.audio.crop_samples,
            num_crops=self.config.num_crops,
            clips_per_block=self.config.batch_size,
        ):
            autocast = runtime.autocast(worker.device, self.config.precision)
            with worker.turns, torch.inference_mode(), autocast:
                embedding = encoder.embed(windows, self.config.layer).cpu().numpy()
            write_embeddings(self.out, clip, embedding)
        worker.wait()
        return {
            "num_clips": shards.num_clips(self.clips),
            "embedding_dim": encoder.encoder.width(self.config.layer),
            "layer": self.config.layer,
            "own_seconds": time.perf_counter() - began,
        }


def write_embeddings(folder: Folder, clip: np.ndarray, embedding: np.ndarray) -> None:
    """Write the embeddings (B, D) of the clips (B,) as one Parquet file, named after the first."""
    values = pa.FixedSizeListArray.from_arrays(
        pa.array(embedding.reshape(-1)), embedding.shape[1]
    )
    table = pa.table({"clip": pa.array(clip), "embedding": values})
    target = f"{folder.path}/embeddings-{int(clip.min()):012d}.parquet"
    with folder.filesystem.open_output_stream(target) as sink:
        pq.write_table(table, sink, compression="NONE", use_dictionary=False)
