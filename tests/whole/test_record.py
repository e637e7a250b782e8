"""What a run leaves in the store is enough to report it without its plan."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from conftest import TINY

pytestmark = pytest.mark.slow


def _records(one, outcome: str) -> list[dict]:
    found = [json.loads(path.read_text()) for path in one.folder.glob("store/runs/*/run.json")]
    return sorted((r for r in found if r["outcome"] == outcome), key=lambda r: r["began"])


def test_the_record_tells_what_was_asked_for_and_what_came_of_it(finished, small_task):
    one, summary = finished
    record = _records(one, "FINISHED")[0]
    assert record["request"]["task"] == str(small_task)
    assert record["config"]["cluster.num_clusters"] == 6
    assert record["summary"]["arms"]["unfused"] == summary["arms"]["unfused"]
    assert record["began"] < record["ended"]
    nodes = {node["name"]: node for node in record["nodes"]}
    assert {n: node["key"] for n, node in nodes.items()} == {
        stage["name"]: stage["key"] for stage in summary["stages"]
    }
    assert nodes["embed"]["inputs"]["teacher"] == ["distill/round1", ""]
    epochs = [point["epoch"] for point in nodes["pretrain"]["curve"]]
    assert epochs == list(range(1, 21))
    assert nodes["pretrain"]["curve"][-1]["metrics"]["loss"] > 0


def test_every_clip_has_its_digest_path_split_label_cluster_and_predictions(finished):
    one, summary = finished
    folder = next(path.parent for path in one.folder.glob("store/runs/*/clips.parquet"))
    rows = pq.read_table(folder / "clips.parquet").to_pylist()
    assert len(rows) == 78 and len({row["digest"] for row in rows}) == 78
    assert all(row["path"].startswith("/") and row["label"] in row["path"] for row in rows)
    by_split = {split: [r for r in rows if r["split"] == split] for split in ("train", "test")}
    assert all(0 <= row["cluster"] < 6 for row in by_split["train"])
    assert all(row["cluster"] is None for row in by_split["test"])
    for arm, scores in summary["arms"].items():
        right = [row[arm][0] == row["label"] for row in by_split["test"]]
        assert sum(right) / len(right) == pytest.approx(scores["accuracy"]["values"][0])
        sure = [p for row in by_split["test"] for p in row[f"{arm}.probability"]]
        assert all(1 / 3 - 1e-6 <= p <= 1 for p in sure)
        assert all(row[arm] is None for row in by_split["train"])


def test_a_run_that_fails_leaves_a_record_of_why(program, small_task):
    one = program("failing")
    failed = one("--task", str(small_task), *TINY, "pretrain.weight_decay=1000", "arms=[unfused]")
    assert failed.returncode == 1
    (record,) = _records(one, "FAILED")
    assert "collapsed" in record["reason"]
    assert not list(one.folder.glob("store/runs/*/clips.parquet"))


def test_a_small_student_learns_from_a_teacher_of_another_kind(program, small_task):
    tiny = [setting for setting in TINY if not setting.startswith("pretrain.epochs")]
    summary = program("kinds").run(
        "--task", str(small_task), *tiny, "pretrain.objective=byol_a", "pretrain.epochs=2",
        "student.kind=mobile_net", "student.embedding_dim=32", "arms=[teacher,unfused]",
    )
    assert summary["config"]["teacher.kind"] == "audio_ntt"
    assert summary["config"]["student.kind"] == "mobile_net"
    assert set(summary["arms"]) == {"teacher", "unfused"}
    assert summary["pseudo_labels"]["num_clusters"] == 6
