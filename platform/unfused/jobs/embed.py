"""One encoder's embeddings of all clips, every worker its share of them.

Axes: B clips, S samples of a clip, D embedding, N clips of all workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from unfused import data, precision, teachers, training
from unfused.audio.samples import Cut
from unfused.config import ConfigError, EmbedConfig
from unfused.data import PartFacts, embeddings_file, write_embeddings
from unfused.distributed import add_over_ranks, gather_rows
from unfused.events import Note
from unfused.models.clip_encoder import ClipEncoder
from unfused.store import Artifact, Folder, read_table
from unfused.teachers import TeacherFacts

BLOCK_SECONDS = 1200.0
"""Of sound that a worker holds at a time, were all clips of mean length."""
QUARANTINE = "quarantine.json"
NOT_FINITE = "the teacher gives NaN or infinite numbers"


class Embedded(NamedTuple):
    """What came of a job."""

    width: int
    """D."""
    num_quarantined: int = 0


@dataclass(frozen=True)
class EmbedJob:
    """One teacher. A worker that is replaced writes its files again, so nothing is ever twice."""

    node: str
    clips: Artifact[PartFacts]
    teacher: Artifact
    config: EmbedConfig
    out: Folder

    def run(self, worker: training.Worker) -> Embedded:
        """Write the embeddings of this worker's share of the clips."""
        encoder = ClipEncoder.load(self.teacher.folder).to(worker.device).eval().for_inference()
        self.out.filesystem.create_dir(self.out.path, recursive=True)
        for clip, windows in worker.even_windows(
            self.clips,
            [self.node],
            cut=Cut(self.clips.facts.audio.crop_samples, self.config.num_crops),
            clips_per_block=self.config.batch_size,
        ):
            autocast = precision.autocast(worker.device, self.config.precision)
            with torch.inference_mode(), autocast:
                embedding = encoder.embed(windows, self.config.layer).cpu().numpy()
            write_embeddings(self.out, clip, embedding)
        worker.wait()
        width = encoder.encoder.width(self.config.layer)
        return Embedded(width)


@dataclass(frozen=True)
class OutsideEmbedJob:
    """One teacher from outside, which takes whole clips at its own rate.

    A worker that is replaced writes its files again, as those of `EmbedJob` do.
    """

    node: str
    clips: Artifact[PartFacts]
    teacher: Artifact[TeacherFacts]
    config: EmbedConfig
    out: Folder

    def run(self, worker: training.Worker) -> Embedded:
        """Write the embeddings of this worker's share of the clips, and the quarantine.

        Raises:
            ConfigError: the teacher wants a higher rate than the clips have; it gives no finite
                number for any of them.
        """
        rate = self.clips.facts.audio.sample_rate
        facts = self.teacher.facts.settled(rate)
        teachers.check_rate(facts, rate)
        teacher = teachers.load(self.teacher.folder, facts, worker.device)
        self.out.filesystem.create_dir(self.out.path, recursive=True)
        good = Mean(teacher.embedding_dim)
        # Teachers are given NumPy: samples go to a GPU as each of them has it.
        on_cpu = replace(worker, device=torch.device("cpu"))
        for clip, waves in on_cpu.whole_clips(self.clips, [self.node], self._clips_per_block):
            rows = teacher.embed(teachers.at_rate([w.numpy() for w in waves], rate, facts))
            write_embeddings(self.out, clip, rows)
            good.add(clip, rows)
        bad = self._quarantine(worker, good)
        worker.wait()
        return Embedded(teacher.embedding_dim, len(bad))

    @property
    def _clips_per_block(self) -> int:
        mean = self.clips.facts.seconds / max(1, self.clips.facts.num_clips)
        return max(1, min(self.config.batch_size, int(BLOCK_SECONDS / max(mean, 1e-3))))

    def _quarantine(self, worker: training.Worker, good: Mean) -> list[int]:
        """Give the clips whose rows are not finite the mean of the others; their indices, of all.

        Raises:
            ConfigError: no row is finite.
        """
        mean = good.over_workers(worker.device)
        for name, clips in good.bad.items():
            mend(self.out, name, clips, mean)
        bad = [clip for clips in good.bad.values() for clip in clips]
        bad = gather_rows(torch.tensor(bad, dtype=torch.int64, device=worker.device)).tolist()
        if len(bad) == self.clips.facts.num_clips:
            raise ConfigError(
                f"The teacher {self.teacher.facts.name} gives NaN or infinite numbers for each of"
                f" the {len(bad)} clips; check its sample_rate and level, or name another."
            )
        if worker.is_first:
            self._tell(worker, bad)
        return bad

    def _tell(self, worker: training.Worker, bad: list[int]) -> None:
        """Keep the list of quarantined clips; say so, and what had to be assumed."""
        if told := self.teacher.facts.assumption:
            worker.emit(Note(told, self.node, "warning"))
        digests = data.digests(self.clips) if bad else []
        rows = [{"digest": digests[clip], "reason": NOT_FINITE} for clip in sorted(bad)]
        self.out.write_json(QUARANTINE, rows)
        if bad:
            text = (
                f"{len(bad)} of {self.clips.facts.num_clips} clips are quarantined for the teacher"
                f" {self.teacher.facts.name}: {NOT_FINITE}; they have the mean of the others."
            )
            worker.emit(Note(text, self.node, "warning"))


@dataclass
class Mean:
    """Of the finite rows of this worker, and which rows are not.

    Attributes:
        width: D.
        bad: the clips of every file that has a row that is not finite.
    """

    width: int
    bad: dict[str, list[int]] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self.total = np.zeros(self.width)

    def add(self, clip: np.ndarray, rows: np.ndarray) -> None:
        """Take the rows (B, D) of clips (B,)."""
        finite = np.isfinite(rows).all(1)
        self.total += rows[finite].sum(0, dtype=np.float64)
        self.count += int(finite.sum())
        if not finite.all():
            self.bad[embeddings_file(clip)] = clip[~finite].tolist()

    def over_workers(self, device: torch.device) -> np.ndarray:
        """The mean (D,) over the finite rows of all workers; zeros where there is none."""
        sums = torch.tensor([*self.total, self.count], dtype=torch.float32, device=device)
        sums = add_over_ranks(sums).cpu().numpy()
        return sums[:-1] / max(1.0, sums[-1])


def mend(folder: Folder, name: str, clips: list[int], mean: np.ndarray) -> None:
    """Put `mean` (D,) in the place of the embeddings of `clips` in one file."""
    table = read_table(folder, name)
    clip = table["clip"].to_numpy()
    rows = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(clip), -1).copy()
    rows[np.isin(clip, clips)] = mean
    write_embeddings(folder, clip, rows)
