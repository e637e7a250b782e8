"""The whole program as a user starts it: real audio, a real Ray, a real MLflow."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mlflow import MlflowClient
from safetensors.numpy import load_file

from conftest import TINY, tone
from unfused.arms import standard_error
from unfused.config import Config, flatten, override, parse_overrides, shown

pytestmark = pytest.mark.slow
ARMS = (
    "floor", "scratch", "teacher", "clusterfit", "unfused", "probe", "mixture", "selftrain",
)  # fmt: skip


def _numbers(summary: dict) -> dict:
    """What must not change when the same run is made again."""
    return {name: summary[name] for name in ("arms", "chosen", "trust", "pseudo_labels")}


def test_a_run_scores_every_arm_on_every_draw(finished):
    _, summary = finished
    assert list(summary["arms"]) == list(ARMS)
    for scores in summary["arms"].values():
        values = scores["accuracy"]["values"]
        assert len(values) == 2 and all(0 <= v <= 1 for v in values)
        assert scores["accuracy"]["mean"] == pytest.approx(np.mean(values))
        assert scores["accuracy"]["sd"] == pytest.approx(np.std(values, ddof=1))
        assert np.sum(scores["confusion"]) == 2 * 18
    assert summary["labels_per_draw"] == {"train": 9, "valid": 0}
    assert summary["chance"] == pytest.approx(1 / 3)


def test_the_chosen_arm_is_as_good_as_any_on_labels_that_it_was_not_told(finished):
    one, summary = finished
    estimates = {arm: s["cross_validated"] for arm, s in summary["arms"].items()}
    for draw, arm in enumerate(summary["chosen"]["by_draw"]):
        best = max(found["values"][draw] for found in estimates.values() if found)
        assert estimates[arm]["values"][draw] >= best - standard_error(best, 9)
        score = summary["arms"][arm]["accuracy"]["values"][draw]
        assert summary["chosen"]["accuracy"]["values"][draw] == score
    assert {"own", "student", "statistics", "cepstra"} <= set(summary["trust"])
    assert "chosen     " in summary["stdout"] and "trust      " in summary["stdout"]
    client = MlflowClient(f"sqlite:///{one.folder}/mlflow.db")
    version = client.search_model_versions("name = 'unfused'")[0]
    model = summary["models"][summary["chosen"]["by_draw"][0]]
    assert model.endswith(f"/model/{version.tags['key']}")


def test_plain_output_has_a_line_for_every_checkpointed_epoch(finished):
    _, summary = finished
    lines = summary["stdout"].splitlines()
    for epoch in range(1, 21):
        assert any(line.startswith(f"pretrain epoch {epoch}/20 ") for line in lines)
    assert any(line.startswith("evaluate/unfused built ") for line in lines)
    assert "mlflow ui" in summary["stdout"]
    assert summary["stderr"].strip() == ""


def test_a_second_run_is_all_hits_and_gives_the_same_numbers(finished, small_task):
    one, summary = finished
    told = replace(one, extra={"PYTHONPROFILEIMPORTTIME": "1", "UNFUSED_DEBUG": "1"})
    again = told.run("--task", str(small_task), *TINY)
    assert {stage["status"] for stage in again["stages"]} == {"hit"}
    assert _numbers(again) == _numbers(summary)
    imported = {line.rpartition("|")[2].strip() for line in again["stderr"].splitlines()}
    assert "unfused.pipeline" in imported
    assert not {"torch", "ray", "sklearn"} & imported, "nothing is built: seconds for nothing"


def test_moving_the_files_rebuilds_nothing_but_the_ingest(finished, small_task, tmp_path):
    one, summary = finished
    moved = tmp_path / "moved"
    shutil.copytree(small_task, moved)
    again = one.run("--task", str(moved), *TINY)
    built = [s["name"] for s in again["stages"] if s["status"] == "built"]
    assert built == ["ingest/task"]
    assert _numbers(again) == _numbers(summary)


def test_the_same_command_in_a_fresh_store_gives_the_same_numbers_even_after_a_kill(
    finished, program, small_task
):
    _, summary = finished
    fresh = program("killed")
    arguments = ("--task", str(small_task), *TINY)
    fresh.kill_after("pretrain epoch 2/20 ", *arguments)
    again = fresh.run(*arguments)
    stages = {stage["name"]: stage for stage in again["stages"]}
    assert stages["pretrain"]["status"] == "built"
    assert 2 <= stages["pretrain"]["resumed_from_epoch"] < 20
    assert _numbers(again) == _numbers(summary)


def test_the_published_method_runs_on_two_workers_over_the_same_draws(
    program, finished, small_task
):
    _, alone = finished
    tiny = [a for a in TINY if not a.startswith(("rounds", "cluster.num_clusters", "finetune"))]
    settings = override(Config(), parse_overrides(list(TINY)))
    finetune = [
        f"{k}={shown(v)}"
        for k, v in flatten(settings).items()
        if k.startswith("finetune.") and k != "finetune.mode"
    ]
    summary = program("faithful").run(
        "--task", str(small_task), "--preset", "faithful", "--num-workers", "2", *tiny, *finetune,
        "pretrain.num_prototypes=8", "arms=[scratch,unfused]",
    )
    assert summary["config"]["pretrain.objective"] == "decar_v2"
    assert summary["config"]["distill.detach_teacher"] is False
    assert summary["config"]["finetune.mode"] == "linear"
    assert summary["pseudo_labels"]["num_clusters"] == 3
    assert np.sum(summary["arms"]["unfused"]["confusion"]) == 2 * 18
    # `scratch` reads nothing of what the presets differ in: only the order of sums does.
    assert summary["arms"]["scratch"]["accuracy"]["values"] == pytest.approx(
        alone["arms"]["scratch"]["accuracy"]["values"], abs=0.12
    )


def test_a_run_that_is_asked_to_end_in_the_middle_of_training_stops_cleanly(program, small_task):
    one = program("interrupted")
    settings = [a for a in TINY if not a.startswith("pretrain.epochs")]
    arguments = ("--task", str(small_task), *settings, "pretrain.epochs=500")
    process, _ = one.start_until("pretrain epoch 2/", *arguments)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 130, said
    assert "The same command goes on" in said and "Traceback" not in said
    assert list(one.folder.glob("store/checkpoints/pretrain/*/epoch-*/epoch.json"))
    assert not list(one.folder.glob("store/pretrain/*"))


def test_what_cannot_be_used_is_quarantined_with_its_reason(finished):
    one, summary = finished
    assert summary["clips"]["task"] == {"read": 78, "quarantined": 2}
    assert "2 of 80 clips cannot be used" in summary["stdout"]
    found = next(one.folder.glob("store/ingest/*/quarantine.json"))
    reasons = {r["path"].rpartition("/")[2]: r["reason"] for r in json.loads(found.read_text())}
    assert set(reasons) == {"words.wav", "cut.wav"}
    assert "not audio" in reasons["words.wav"] and "truncated" in reasons["cut.wav"]


def test_too_many_bad_clips_are_refused(program, tmp_path):
    rng = np.random.default_rng(3)
    rows = []
    for i in range(20):
        label, split = ("a", "b")[i % 2], ("train", "train", "train", "valid", "test")[i % 5]
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, tone(rng, 300 + 900 * (i % 2), 0.5, 16000), 16000)
        rows.append([path.name, label, split])
    (tmp_path / "5.wav").unlink()
    soundfile.write(tmp_path / "6.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    with open(tmp_path / "task.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    one = program("quarantine")
    refused = one("--task", str(tmp_path / "task.csv"), *TINY, "arms=[scratch]")
    assert refused.returncode == 2
    assert "2 of 20 clips cannot be used" in refused.stderr
    assert "6.wav (NaN or infinite samples" in refused.stderr
    assert "ingest.max_bad_fraction" in refused.stderr
    client = MlflowClient(f"sqlite:///{one.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("unfused").experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs} == {"KILLED"}, "a refusal is no failure"
    (run,) = (run for run in runs if run.data.tags["kind"] == "pipeline")
    assert "2 of 20 clips cannot be used" in run.data.tags["mlflow.note.content"]
    assert not list(one.folder.glob("store/*/*/manifest.json"))


def test_overlap_between_train_and_test_is_refused_before_anything_is_built(
    program, small_task, tmp_path
):
    task = tmp_path / "task"
    shutil.copytree(small_task, task)
    shutil.copy(task / "test/low/0.wav", task / "train/low/same.wav")
    one = program("overlap")
    refused = one("--task", str(task), *TINY)
    assert refused.returncode == 2
    assert "data.allow_overlap=true" in refused.stderr
    assert not list(one.folder.glob("store/*/*/manifest.json"))


def test_what_the_task_holds_out_is_left_out_of_the_corpus(program, small_task, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in (small_task / "train" / "mid").glob("?.wav"):
        shutil.copy(path, corpus / path.name)
    shutil.copy(small_task / "test/low/0.wav", corpus / "same bytes.wav")
    one = program("corpus")
    summary = one.run("--task", str(small_task), "--corpus", str(corpus), *TINY, "arms=[floor]")
    assert "1 clip of the corpus is held out by the task, and left out" in summary["stdout"]
    assert summary["clips"]["corpus"] == {"read": len(list(corpus.iterdir())) - 1, "quarantined": 0}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_numbers_do_not_depend_on_how_many_jobs_run_side_by_side(program, small_task):
    """Weights, clusters and predictions of every stage, bit for bit."""
    found, shorter = [], ("rounds=1", "pretrain.epochs=4", "selftrain.epochs=2")
    for jobs in ("1", "2", "4"):
        one = program(f"jobs-{jobs}")
        summary = one.run("--task", str(small_task), "--jobs", jobs, *TINY, *shorter)
        assert summary["run"]["jobs"] == int(jobs)
        found.append(_contents(one.folder / "store"))
    assert len(found[0]) > 50
    assert found[0] == found[1] == found[2]


def _contents(store: Path) -> dict[str, bytes]:
    """What the store's artifacts hold: every array's bytes."""
    arrays = {}
    for path in sorted(store.glob("*/*/**/*")):
        name = str(path.relative_to(store))
        if path.suffix == ".safetensors":
            # The order of a header's entries is by chance.
            for key, array in load_file(path).items():
                arrays[f"{name} {key}"] = array.tobytes()
        elif path.suffix in (".npy", ".parquet") and not name.startswith(("runs", "work")):
            arrays[name] = path.read_bytes()
    return arrays
