"""The whole of it as one program of torch, which both formats are made of.

The rule of this file: the program is exported once, with clips and samples of any number.

Axes: B clips, S samples, D embedding, N classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from unfused.config.choices import plugin
from unfused.exporting.cutting import as_int16
from unfused.exporting.facts import EMBEDDING, METADATA_FILE, PROBABILITIES
from unfused.scorers import ScorerFacts
from unfused.store import Folder

ROOM = "exporting.kinds"
EXAMPLE_CLIPS, EXAMPLE_SECONDS = 2, 3
"""Of the input that it is exported with: several of everything."""


class Classifier(nn.Module):
    """Samples in [-1, 1] (B, S) to probabilities (B, N) and an embedding (B, D), by name.

    Args:
        scorer: int16 numbers (B, S) to scores (B, N) and an embedding (B, D).
    """

    def __init__(self, scorer: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        scores, embedding = self.scorer(as_int16(waveform))
        return {PROBABILITIES: scores.softmax(1), EMBEDDING: embedding}


@dataclass(frozen=True)
class Made:
    """A program, and what must be known beside it."""

    program: ExportedProgram
    embedding_dim: int
    """D."""


def of(folder: Folder, facts: ScorerFacts, sample_rate: int) -> Made:
    """The classifier of the first draw as a program.

    Raises:
        ConfigError: such a scorer cannot be exported.
    """
    scorer = plugin(ROOM, facts.kind).module(folder, facts, sample_rate)
    model = Classifier(scorer).eval().requires_grad_(False)
    example = torch.zeros(EXAMPLE_CLIPS, EXAMPLE_SECONDS * sample_rate)
    sizes = {0: Dim("batch", min=1), 1: Dim("samples", min=1)}
    program = torch.export.export(model, (example,), dynamic_shapes={"waveform": sizes})
    for node in program.graph.nodes:
        # Lines of this machine's files, which are no business of whoever gets the model.
        node.meta.pop("stack_trace", None)
    return Made(program, model(example)[EMBEDDING].shape[1])


def save(made: Made, out: Path, metadata: Mapping[str, str]) -> None:
    """What `torch.export.load` reads; the metadata is JSON among its extra files."""
    told = json.dumps(dict(metadata), ensure_ascii=False, indent=2)
    with out.open("wb") as file:
        torch.export.save(made.program, file, extra_files={METADATA_FILE: told})
