"""The model that a run leaves, as its user meets it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

import unfused
from conftest import ROOT, TINY
from unfused.inference import load


def test_a_runs_model_labels_the_test_clips_as_the_summary_says(finished, small_task):
    _, summary = finished
    chosen = summary["chosen"]
    arm = chosen["by_draw"][0]
    model = unfused.load(summary["models"][arm])
    table = model.predict_all(sorted((small_task / "test").glob("*/*.*")))
    right = table["label"] == [Path(path).parent.name for path in table["path"]]
    assert right.mean() == chosen["accuracy"]["values"][0]
    assert model.facts.measured.own_accuracy == chosen["accuracy"]["values"][0]
    assert model.facts.arm == arm and model.facts.lineage["keys"]


def test_a_run_says_how_to_use_its_model_and_every_model_is_whole(finished):
    _, summary = finished
    folder = next(iter(summary["models"].values()))
    assert f"unfused predict {folder}" in " ".join(summary["stdout"].split())
    for place in summary["models"].values():
        assert load(place).classes == ["high", "low", "mid"]
        assert (Path(place) / "README.md").read_text().startswith("# task")


RUN_NOTEBOOK = """
import ast, json, sys
notebook, parameters = json.load(open(sys.argv[1])), json.loads(sys.argv[2])
names, shown = {}, []
for cell in notebook["cells"]:
    if cell["cell_type"] != "code":
        continue
    if "parameters" in cell["metadata"].get("tags", ()):
        names |= parameters
        continue
    *body, last = ast.parse("".join(cell["source"])).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    else:
        exec(compile(ast.Module([last], []), "cell", "exec"), names)
arms, trust, clips, said, probabilities, right, timeline = shown
print(json.dumps({"arms": list(arms.index), "accuracy": list(arms["accuracy"]), "right": right,
    "clips": len(clips), "label": said.label, "trust": len(trust), "segments": len(timeline)}))
"""


def test_the_notebook_runs_from_its_first_cell_to_its_last(finished, small_task):
    one, summary = finished
    settings = dict(word.split("=", 1) for word in TINY)
    parameters = {
        "task": str(small_task),
        "store": str(one.folder / "store"),
        "settings": {name: json.loads(value) for name, value in settings.items()},
    }
    notebook = str(ROOT / "docs" / "use.ipynb")
    done = subprocess.run(
        [sys.executable, "-c", RUN_NOTEBOOK, notebook, json.dumps(parameters)],
        cwd=one.folder, env=one.environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["arms"] == list(summary["arms"])
    assert told["accuracy"] == [arm["accuracy"]["mean"] for arm in summary["arms"].values()]
    assert told["right"] == summary["chosen"]["accuracy"]["values"][0]
    assert told["label"] in ("high", "low", "mid") and told["trust"] and told["segments"]


def test_clips_that_were_clustered_have_their_pseudo_labels_again(finished, small_task):
    one, summary = finished
    model = next(iter(summary["models"].values()))
    done = subprocess.run(
        [sys.executable, "-m", "unfused", "pseudo-label", model, str(small_task / "train")],
        cwd=one.folder, env=one.environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {row["digest"]: row for row in csv.DictReader(done.stdout.splitlines())}
    (record,) = (one.folder / "store" / "runs").glob(f"{summary['run']['id']}/clips.parquet")
    rows = [row for row in pq.read_table(record).to_pylist() if row["cluster"] is not None]
    assert len(rows) == 48
    assert [int(found[row["digest"]]["cluster"]) for row in rows] == [r["cluster"] for r in rows]
    assert sum(row["reason"] != "" for row in found.values()) == 2
