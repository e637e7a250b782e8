"""Pools of teachers by trust: see `unfused.scorers.probes`.

Axes: B clips, S samples, D embedding, P components, M joined clips, k neighbours, N classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.numpy import load as arrays_of
from torch import Tensor, nn

from unfused.config import ConfigError, choices
from unfused.probing.facts import neighbours_file, probes_file, teacher_of
from unfused.probing.neighbours import STEEPNESS
from unfused.probing.trust import FLOOR
from unfused.scorers import ScorerFacts
from unfused.scorers.probes import TEACHER_FILE, draw_file, teachers_of
from unfused.store import Folder
from unfused.teachers import TeacherFacts

ROOM = "exporting.teachers"


class Linear(nn.Module):
    """Embeddings (B, D) to what a linear probe says of them (B, N).

    Args:
        weight: (N, D).
        bias: (N,).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, rows: Tensor) -> Tensor:
        return (rows @ self.weight.T + self.bias).softmax(1)


class Nearest(nn.Module):
    """Embeddings (B, D) to what their neighbours say (B, N): see `probing.neighbours`.

    Args:
        kept: the joined clips, by the names of `Neighbours.arrays`.
        said: (M, N) of them.
    """

    mean: Tensor
    basis: Tensor
    rows: Tensor
    said: Tensor

    def __init__(self, kept: Mapping[str, Tensor], said: Tensor) -> None:
        super().__init__()
        self.reach, count = kept["settings"].tolist()
        self.count = int(count)
        for name in ("mean", "basis"):
            self.register_buffer(name, kept[name].float())
        self.register_buffer("rows", kept["rows"])
        self.register_buffer("said", said)

    def forward(self, rows: Tensor) -> Tensor:
        found = (rows - self.mean) @ self.basis
        units = found / found.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        near, places = (units @ self.rows.float().T).topk(self.count, dim=1)
        far = (2 - 2 * near).clamp(min=0) / self.reach**2
        weight = (-STEEPNESS * far).exp() + 1e-12
        heard = self.said.float().index_select(0, places.flatten()).unflatten(0, (-1, self.count))
        return (heard * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)


class Pool(nn.Module):
    """int16 numbers (B, S) to scores (B, N), and all embeddings beside one another (B, D).

    Args:
        teachers: by name.
        voices: what judges by a teacher's embeddings: the teacher's name, its weight, itself.
    """

    def __init__(
        self, teachers: Mapping[str, nn.Module], voices: list[tuple[str, float, nn.Module]]
    ) -> None:
        super().__init__()
        self.names = list(teachers)
        self.teachers = nn.ModuleList(teachers.values())
        self.heard = [(self.names.index(name), weight) for name, weight, _ in voices]
        self.voices = nn.ModuleList(voice for _, _, voice in voices)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        rows = [teacher(samples) for teacher in self.teachers]
        scores = [
            weight * voice(rows[place]).clamp(min=FLOOR).log()
            for (place, weight), voice in zip(self.heard, self.voices, strict=True)
        ]
        return torch.stack(scores).sum(0), torch.cat(rows, 1)


def module(folder: Folder, facts: ScorerFacts, sample_rate: int) -> Pool:
    """See `unfused.exporting`.

    Raises:
        ConfigError: a teacher of the pool comes from outside.
    """
    settings = folder.read_json(draw_file(0))
    arrays = _tensors(folder, probes_file(0))
    voices = [
        (teacher_of(name), weight, _voice(folder, name, arrays))
        for name, weight in settings["weights"].items()
    ]
    names = teachers_of(settings["weights"])
    return Pool({name: _teacher(folder / name, name, sample_rate) for name in names}, voices)


def _voice(folder: Folder, name: str, arrays: Mapping[str, Tensor]) -> nn.Module:
    if (teacher := teacher_of(name)) == name:
        return Linear(arrays[f"{name}.weight"], arrays[f"{name}.bias"])
    return Nearest(_tensors(folder, neighbours_file(teacher)), arrays[f"{name}.said"])


def _tensors(folder: Folder, name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(one) for key, one in arrays_of(folder.read(name)).items()}


def _teacher(folder: Folder, name: str, sample_rate: int) -> nn.Module:
    facts = TeacherFacts.model_validate(folder.read_json(TEACHER_FILE)).settled(sample_rate)
    if facts.kind not in choices.kinds(ROOM):
        raise ConfigError(
            f"The arm listens to the teacher {name}, which comes from outside and fits in no file"
            " but its own; export the arm selftrain of the same run, its student."
        )
    if facts.sample_rate != sample_rate:
        raise ConfigError(
            f"The arm's teacher {name} takes {facts.sample_rate} Hz and the export says"
            f" {sample_rate}, which no file resamples; export the arm selftrain of the same run,"
            " its student."
        )
    return choices.plugin(ROOM, facts.kind).module(folder, facts, sample_rate)
