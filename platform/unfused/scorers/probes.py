"""What frozen teachers' embeddings say, by linear probes and by neighbours, pooled by trust.

    draw-00.json            the weight of every voice, and the clips' sample rate
    probes-00.safetensors   the voices, and
    <teacher>.safetensors   the joined clips of a teacher, both as `probing.facts` has them
    <teacher>/teacher.json  what a teacher says of itself, beside its files

Axes: S samples of a clip, B clips, T teachers, D embedding, N classes, R draws of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unfused import teachers
from unfused.probing import Neighbours, Probe, Spread, opinion
from unfused.probing.facts import neighbours_file, probes_file, teacher_of
from unfused.scorers.protocol import ScorerFacts
from unfused.store import Folder
from unfused.teachers import Teacher, TeacherFacts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TEACHER_FILE = "teacher.json"
LIBRARIES = {"onnx": "onnxruntime", "hf": "transformers"}
"""That a kind of teacher is run by, where it is not torch."""


class ProbesScorer:
    """The pools of all draws; what a teacher embeds serves all of them.

    Args:
        folder: of the files.
        facts: of the teachers that any draw listens to, by name.
        draws: for every draw the weight and the classifier of each of its voices.
        rate: Hz of the clips.
        device: where teachers run; by default on CPU.
    """

    def __init__(
        self,
        folder: Folder,
        facts: Mapping[str, TeacherFacts],
        draws: Sequence[Mapping[str, tuple[float, Probe | Spread]]],
        rate: int,
        device: torch.device | None = None,
    ) -> None:
        import torch

        device = device or torch.device("cpu")
        self.folder, self.facts, self.draws, self.rate = folder, facts, draws, rate
        self.teachers: dict[str, Teacher] = {
            name: teachers.load(folder / name, one, device) for name, one in facts.items()
        }

    def to(self, device: torch.device) -> ProbesScorer:
        """The same, with teachers on another device."""
        if device.type == "cpu":
            return self
        return ProbesScorer(self.folder, self.facts, self.draws, self.rate, device)

    def scores(self, clips: Sequence[Tensor]) -> Tensor:
        """Whole int16 clips (S,), B of them, to scores (R, B, N)."""
        import torch

        rows = self._rows(clips)
        found = [
            sum(
                weight * opinion(voice.probabilities(rows[teacher_of(name)]))
                for name, (weight, voice) in draw.items()
            )
            for draw in self.draws
        ]
        return torch.from_numpy(np.stack(found)).float()

    def embeddings(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        """Those of every teacher."""
        import torch

        return {f"embedding.{name}": torch.from_numpy(r) for name, r in self._rows(clips).items()}

    def _rows(self, clips: Sequence[Tensor]) -> dict[str, np.ndarray]:
        waves = [clip.cpu().numpy() for clip in clips]
        return {
            name: teacher.embed(teachers.at_rate(waves, self.rate, self.facts[name]))
            for name, teacher in self.teachers.items()
        }


def load(folder: Folder, facts: ScorerFacts) -> ProbesScorer:
    """See `unfused.scorers.load`."""
    from safetensors.numpy import load as arrays_of

    draws, rate, joined = [], 0, {}
    for repeat in range(facts.num_repeats):
        settings = folder.read_json(draw_file(repeat))
        arrays, rate = arrays_of(folder.read(probes_file(repeat))), settings["sample_rate"]
        voices = {}
        for name, weight in settings["weights"].items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of {name} is {weight}")
            if (teacher := teacher_of(name)) == name:
                voices[name] = weight, Probe(arrays[f"{name}.weight"], arrays[f"{name}.bias"])
                continue
            if teacher not in joined:
                kept = arrays_of(folder.read(neighbours_file(teacher)))
                joined[teacher] = Neighbours.from_arrays(kept)
            voices[name] = weight, Spread(joined[teacher], arrays[f"{name}.said"])
        draws.append(voices)
    names = teachers_of(name for draw in draws for name in draw)
    told = {name: _facts(folder / name) for name in names}
    return ProbesScorer(folder, told, draws, rate)


def _facts(folder: Folder) -> TeacherFacts:
    return TeacherFacts.model_validate(folder.read_json(TEACHER_FILE))


def draw_file(repeat: int) -> str:
    return f"draw-{repeat:02d}.json"


def files(folder: Folder, repeat: int) -> list[str]:
    """See `unfused.scorers.files`."""
    names = [draw_file(repeat), probes_file(repeat)]
    voices = folder.read_json(draw_file(repeat))["weights"]
    for teacher in teachers_of(voices):
        facts = _facts(folder / teacher)
        own = [TEACHER_FILE, *teachers.files(folder / teacher, facts)]
        names += [f"{teacher}/{name}" for name in own]
    return names + [neighbours_file(name) for name in joined_in(voices)]


def teachers_of(voices: Iterable[str]) -> list[str]:
    """Whose embeddings they judge by."""
    return sorted({teacher_of(name) for name in voices})


def joined_in(voices: Iterable[str]) -> list[str]:
    """The teachers whose joined clips they need."""
    return sorted({teacher_of(name) for name in voices if name != teacher_of(name)})


def requirements(folder: Folder, facts: ScorerFacts) -> list[str]:
    """See `unfused.scorers.requirements`."""
    voices = folder.read_json(draw_file(0))["weights"]
    kinds = {_facts(folder / name).kind for name in teachers_of(voices)}
    return ["soundfile", "soxr", *(LIBRARIES[kind] for kind in sorted(kinds & LIBRARIES.keys()))]
