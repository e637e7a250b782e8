"""What a run leaves in the store for whoever reports it later, without its plan.

The rule of this file: it repeats what artifacts say, joined, and decides nothing. The clips are
written before a run ends, since what they are read from may be damaged, and built again.

    <store>/runs/<id>/run.json        request, settings, nodes with keys, times and curves, outcome
    <store>/runs/<id>/clips.parquet   every clip of every repetition: where it came from, its label
                                      and cluster, and what every arm says of it
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from unfused.arms import ARMS
from unfused.config import flatten
from unfused.events import EpochDone, Event, RunFinished, RunStarted
from unfused.pipeline.plan import Plan, Step
from unfused.secrets import hidden_in
from unfused.stages.evaluate import PREDICTIONS_FILE
from unfused.stages.ingest import CLIPS_FILE
from unfused.store import create_table, opened_table, read_npy, read_table

FORM = 1
"""Of the record: raise it when a file or a field changes its meaning."""
RUN_FILE = "run.json"
RUN_CLIPS = "clips.parquet"
ROWS_TOGETHER = 4096


class Recorder:
    """Takes note of a run's events, and writes its record when it has ended.

    Args:
        plan: of the run.
        run: its id, which the folder is called.
    """

    def __init__(self, plan: Plan, run: str) -> None:
        self.plan = plan
        self.folder = plan.store.root / "runs" / run
        self._run = run
        self._started: tuple[float, RunStarted] | None = None
        self._curves: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._started = time.time(), event
            case EpochDone():
                self._curves[event.node].append(asdict(event))
            case RunFinished() if self._started:
                # What has failed tells why by itself, of a full disk too.
                with suppress(OSError) if event.status == "FAILED" else nullcontext():
                    self._write(event, *self._started)

    def _write(self, end: RunFinished, began: float, start: RunStarted) -> None:
        request = self.plan.request
        record = hidden_in(
            {
                "form": FORM,
                "id": self._run,
                "request": {
                    "corpus": request.corpus,
                    "task": request.task,
                    "seeds": request.seeds,
                    "folds": request.folds,
                    "teachers": list(request.specs),
                    "options": request.options.model_dump(mode="json"),
                },
                "config": flatten(request.config),
                "repetitions": self.plan.repetitions,
                "nodes": [self._node(step) for step in self.plan.steps.values()],
                "began": began,
                "ended": time.time(),
                "outcome": end.status,
                "reason": end.reason,
                "summary": end.summary,
                "provenance": start.provenance,
            }
        )
        self.folder.write_json(RUN_FILE, record)

    def write_clips(self) -> None:
        """Write `clip_rows` of a finished plan, some thousands of clips in memory at a time.

        Raises:
            Damaged: a file that they are read from is not what was written.
        """
        names = ("repetition", "split", "digest", "path", "label")
        columns = [(name, pa.string()) for name in names]
        columns += [("clip", pa.int64()), ("cluster", pa.int64())]
        for arm in self.plan.request.config.arms:
            columns.append((arm, pa.list_(pa.string())))
            columns.append((f"{arm}.probability", pa.list_(pa.float32())))
        schema, rows = pa.schema(columns), clip_rows(self.plan)
        with self.folder.create(RUN_CLIPS) as sink, create_table(sink, schema) as writer:
            while some := list(islice(rows, ROWS_TOGETHER)):
                writer.write_table(pa.Table.from_pylist(some, schema=schema))

    def _node(self, step: Step) -> dict[str, Any]:
        curve = getattr(step.facts, "curve", None) or self._curves.get(step.node.name, [])
        return {
            "name": step.node.name,
            "stage": step.node.stage,
            "key": step.key,
            "status": step.status,
            "seconds": round(step.seconds, 3),
            "resumed_from_epoch": step.resumed_from_epoch,
            "folder": self.plan.folder(step).uri if step.manifest else None,
            "inputs": {
                name: [ref.node, ref.part] for name, ref in step.node.inputs.items()
            },
            "curve": curve,
        }


def clip_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """Every clip of a finished plan, once for every repetition that has it.

    A row has `repetition` (the prefix of its nodes), `path`, `digest`, `split`, `clip` (the index
    in its split), `label`, `cluster` (of training clips, where there are pseudo-labels), and for
    every arm the labels that its draws predict (`<arm>`) and their probabilities
    (`<arm>.probability`); null where there is none.
    """
    for prefix in plan.repetitions:
        clusters = _clusters(plan, prefix)
        arms = {arm: _predictions(plan, prefix, arm) for arm in plan.request.config.arms}
        for row in _listed(plan, prefix):
            found = clusters.get(row["split"])
            row["cluster"] = int(found[row["clip"]]) if found is not None else None
            for arm, said in arms.items():
                labels, sure = said.get((row["split"], row["clip"]), (None, None))
                row |= {arm: labels, f"{arm}.probability": sure}
            yield row


def _listed(plan: Plan, prefix: str) -> Iterator[dict[str, Any]]:
    """The clips that a repetition's nodes read."""
    arm = ARMS[plan.request.config.arms[0]]
    task = plan.steps[f"{prefix}{arm.classifier}"].node.inputs["clips"].node
    for name in ("ingest/corpus", task):
        if name in plan.steps:
            with opened_table(plan.folder(plan.steps[name]), CLIPS_FILE) as table:
                for some in table.iter_batches(ROWS_TOGETHER):
                    for row in some.to_pylist():
                        yield {"repetition": prefix, **row}


def _clusters(plan: Plan, prefix: str) -> dict[str, np.ndarray]:
    """The pseudo-labels of the training clips, by split."""
    step = plan.pseudo_labels(prefix)
    return {"train": read_npy(plan.folder(step), "labels.npy")} if step else {}


def _predictions(
    plan: Plan, prefix: str, arm: str
) -> dict[tuple[str, int], tuple[list[str], list[float]]]:
    """Predicted labels and their probabilities, of every draw, by split and clip."""
    split = plan.request.config.evaluate.split
    step = plan.steps[f"{prefix}{ARMS[arm].scores(split)}"]
    folder, classes = plan.folder(step), step.facts.classes
    table = read_table(folder, PREDICTIONS_FILE)
    draws = range(len(step.facts.accuracy))
    ids = np.stack([table[f"draw_{r}"].to_numpy() for r in draws], 1)
    sure = np.stack([table[f"probability_{r}"].to_numpy() for r in draws], 1)
    return {
        (split, clip): ([classes[i] for i in ids[clip]], sure[clip].tolist())
        for clip in range(len(ids))
    }
