"""One encoder's embeddings of all clips, every worker its share of them.

Axes: B clips, C windows of a clip, S samples, D embedding.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unfused import precision, training
from unfused.config import EmbedConfig
from unfused.data import PartFacts
from unfused.models.clip_encoder import ClipEncoder
from unfused.store import Artifact, Folder


@dataclass(frozen=True)
class EmbedJob:
    """One teacher. A worker that is replaced writes its files again, so nothing is ever twice."""

    node: str
    clips: Artifact[PartFacts]
    teacher: Artifact
    config: EmbedConfig
    out: Folder

    def run(self, worker: training.Worker) -> tuple[int, float]:
        """The width of the embeddings, and what the job took in seconds."""
        began = time.perf_counter()
        encoder = ClipEncoder.load(self.teacher.folder).to(worker.device).eval().for_inference()
        self.out.filesystem.create_dir(self.out.path, recursive=True)
        for clip, windows in worker.even_windows(
            self.clips,
            [self.node],
            num_samples=encoder.audio.crop_samples,
            num_crops=self.config.num_crops,
            clips_per_block=self.config.batch_size,
        ):
            autocast = precision.autocast(worker.device, self.config.precision)
            with worker.turns, torch.inference_mode(), autocast:
                embedding = encoder.embed(windows, self.config.layer).cpu().numpy()
            write_embeddings(self.out, clip, embedding)
        worker.wait()
        return encoder.encoder.width(self.config.layer), time.perf_counter() - began


def write_embeddings(folder: Folder, clip: np.ndarray, embedding: np.ndarray) -> None:
    """Write the embeddings (B, D) of the clips (B,) as one Parquet file, named after the first."""
    values = pa.FixedSizeListArray.from_arrays(
        pa.array(embedding.reshape(-1)), embedding.shape[1]
    )
    table = pa.table({"clip": pa.array(clip), "embedding": values})
    target = f"{folder.path}/embeddings-{int(clip.min()):012d}.parquet"
    with folder.filesystem.open_output_stream(target) as sink:
        pq.write_table(table, sink, compression="NONE", use_dictionary=False)
