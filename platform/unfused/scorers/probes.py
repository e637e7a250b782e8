"""Linear probes on frozen teachers, whose judgements are pooled by trust.

    draw-00.json            the weight of every teacher's probe, and the clips' sample rate
    probes-00.safetensors   the probes, `<teacher>.weight` (N, D) and `<teacher>.bias` (N,)
    <teacher>/teacher.json  what a teacher says of itself, beside its files

Axes: S samples of a clip, B clips, T teachers, D embedding, N classes, R draws of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unfused import teachers
from unfused.probing import Probe, opinion
from unfused.probing.facts import probes_file
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
        draws: for every draw the weight and the probe of each of its teachers.
        rate: Hz of the clips.
        device: where teachers run; by default on CPU.
    """

    def __init__(
        self,
        folder: Folder,
        facts: Mapping[str, TeacherFacts],
        draws: Sequence[Mapping[str, tuple[float, Probe]]],
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

        waves = [clip.cpu().numpy() for clip in clips]
        rows = {
            name: teacher.embed(teachers.at_rate(waves, self.rate, self.facts[name]))
            for name, teacher in self.teachers.items()
        }
        found = [
            sum(w * opinion(probe.probabilities(rows[name])) for name, (w, probe) in draw.items())
            for draw in self.draws
        ]
        return torch.from_numpy(np.stack(found)).float()


def load(folder: Folder, facts: ScorerFacts) -> ProbesScorer:
    """See `unfused.scorers.load`."""
    from safetensors.numpy import load as arrays_of

    draws, rate = [], 0
    for repeat in range(facts.num_repeats):
        settings = folder.read_json(draw_file(repeat))
        arrays, rate = arrays_of(folder.read(probes_file(repeat))), settings["sample_rate"]
        draws.append(
            {
                name: (weight, Probe(arrays[f"{name}.weight"], arrays[f"{name}.bias"]))
                for name, weight in settings["weights"].items()
            }
        )
    names = sorted({name for draw in draws for name in draw})
    told = {name: _facts(folder / name) for name in names}
    return ProbesScorer(folder, told, draws, rate)


def _facts(folder: Folder) -> TeacherFacts:
    return TeacherFacts.model_validate(folder.read_json(TEACHER_FILE))


def draw_file(repeat: int) -> str:
    return f"draw-{repeat:02d}.json"


def files(folder: Folder, repeat: int) -> list[str]:
    """See `unfused.scorers.files`."""
    names = [draw_file(repeat), probes_file(repeat)]
    for teacher in folder.read_json(draw_file(repeat))["weights"]:
        facts = _facts(folder / teacher)
        own = [TEACHER_FILE, *teachers.files(folder / teacher, facts)]
        names += [f"{teacher}/{name}" for name in own]
    return names


def requirements(folder: Folder, facts: ScorerFacts) -> list[str]:
    """See `unfused.scorers.requirements`."""
    kinds = {_facts(folder / name).kind for name in folder.read_json(draw_file(0))["weights"]}
    return ["soundfile", "soxr", *(LIBRARIES[kind] for kind in sorted(kinds & LIBRARIES.keys()))]
