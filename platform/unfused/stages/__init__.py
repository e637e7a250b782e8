"""One verb a file: ingest, pretrain, embed, cluster, distill, finetune, evaluate.

The rule of this room: a stage sees its own config sections and its inputs' artifacts, nothing
else. It is a module with

    needs        what it asks of the cluster
    run          builds one or more nodes of this stage, writes each into its `out` folder and
                 returns each one's facts (what its manifest says of it)

Nodes of one stage that are ready together are built together: workers that are there take one
after the other, and clips that are read once serve all that want them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from unfused.config import RunOptions, Section
from unfused.corpora.clip import Clip
from unfused.runtime import Hardware, gpus_per_worker
from unfused.store import Artifact, Folder

NAMES = ("ingest", "pretrain", "embed", "cluster", "distill", "finetune", "evaluate")


@dataclass(frozen=True)
class Build:
    """One node to be built."""

    node: str
    config: Mapping[str, Section]
    inputs: Mapping[str, Artifact]
    out: Folder
    checkpoints: Folder
    clips: Sequence[Clip] = field(default=(), repr=False)
    """What ingest is to read; empty for every other stage."""


Facts = dict[str, Any]


def module(stage: str) -> ModuleType:
    """The module of a stage, imported when it is first needed."""
    return importlib.import_module(f"unfused.stages.{stage}")


def version(stage: str) -> int:
    return VERSIONS[stage]


VERSIONS = {name: 3 for name in NAMES} | {"cluster": 5, "finetune": 4}
"""Part of every key: raise a stage's number when the same inputs would give other numbers or
files of another form."""


def training_needs(options: RunOptions, hardware: Hardware) -> dict[str, float]:
    """Ray Train's workers, and as many CPUs again for the Ray Data tasks that feed them."""
    workers = options.num_workers
    gpus = gpus_per_worker(options, hardware)
    return {"CPU": 2.0 * workers, "GPU": float(gpus * workers)}
