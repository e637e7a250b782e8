"""One verb a file: ingest, pretrain, embed, cluster, distill, finetune, fit, evaluate.

    contract    what a stage is
    access      what of the cluster it may touch

The rule of this room: a stage sees its own config sections and its inputs' artifacts, and of the
cluster what it has declared; nothing else. A new stage is one new file with a `STAGE` at its end.
"""

from __future__ import annotations

import importlib

from unfused.stages.access import Access, Tasks, Workers
from unfused.stages.contract import Build, Built, Stage


def get(name: str) -> Stage:
    """The contract of a stage, whose file is imported when it is first needed."""
    return importlib.import_module(f"unfused.stages.{name}").STAGE


__all__ = ["Access", "Build", "Built", "Stage", "Tasks", "Workers", "get"]
