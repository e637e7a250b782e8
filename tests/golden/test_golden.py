"""The numbers of every stage on a tiny fixed input, held against golden.json."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys

import pytest

from golden import runs
from golden.comparison import made_elsewhere, outdated, unexplained
from golden.record import measure, read_recorded

RECORDED = {
    "small": {
        "pretrain": {"stage": "pretrain", "version": 3, "numbers": {"loss": 3.1, "digest": "ab"}},
        "embed": {"stage": "embed", "version": 3, "numbers": {"embeddings": 50.0}},
        "evaluate/teacher": {"stage": "evaluate", "version": 3, "numbers": {"accuracy": [0.5, 1]}},
    }
}


def _with(node: str, **changes) -> dict:
    """The recorded runs with some numbers, or the version, of one node changed."""
    found = copy.deepcopy(RECORDED)
    version = changes.pop("version", None)
    found["small"][node]["numbers"] |= changes
    if version:
        found["small"][node]["version"] = version
    return found


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="golden.json is of x86-64 processors")
def test_the_numbers_of_every_stage_are_the_recorded_ones(tmp_path):
    recorded, found = read_recorded(), measure(tmp_path)
    elsewhere = recorded["made_with"].get("processor") != found["made_with"]["processor"]
    told = unexplained(recorded["runs"], found["runs"], elsewhere=elsewhere)
    told += outdated(recorded["runs"], found["runs"])
    note = made_elsewhere(recorded["made_with"], found["made_with"])
    assert not told, "\n".join(told + note)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="golden.json is of x86-64 processors")
def test_the_program_computes_with_what_every_processor_has():
    code = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=runs.environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
    )
    assert done.stdout.split() == ["DEFAULT", "1"], done.stderr


def test_what_is_recorded_covers_every_stage():
    nodes = [node for run in read_recorded()["runs"].values() for node in run.values()]
    stages = {node["stage"] for node in nodes if node["numbers"]}
    trained = {"pretrain", "embed", "cluster", "distill", "finetune"}
    assert stages >= trained | {"ingest", "evaluate"}


def test_equal_numbers_are_no_fault_and_neither_is_another_rounding_or_a_new_node():
    found = _with("pretrain", loss=3.1001)
    found["small"]["finetune/floor"] = {"stage": "floor", "version": 1, "numbers": {"x": 1}}
    found["another"] = {}
    assert unexplained(RECORDED, found) == outdated(RECORDED, found) == []


def test_another_processor_may_round_otherwise_and_no_more():
    found = _with("pretrain", loss=3.3, digest="cd")
    assert unexplained(RECORDED, found, elsewhere=True) == []
    assert unexplained(RECORDED, found) != []
    for changes in ({"loss": 4.5}, {"digest": None}):
        assert unexplained(RECORDED, _with("pretrain", **changes), elsewhere=True) != []


@pytest.mark.parametrize(
    ("node", "changes", "told"),
    [
        ("pretrain", {"loss": 3.2}, "loss: 3.1 -> 3.2"),
        ("pretrain", {"digest": "cd"}, "digest: ab -> cd"),
        ("pretrain", {"loss": 3.2, "digest": "cd"}, "loss: 3.1 -> 3.2, and 1 more"),
        ("evaluate/teacher", {"accuracy": [0.5, 0.9999]}, "accuracy: [0.5, 1] -> [0.5, 0.9999]"),
    ],
)
def test_a_changed_number_under_the_same_version_is_told_in_one_sentence(node, changes, told):
    stage = node.partition("/")[0]
    assert unexplained(RECORDED, _with(node, **changes)) == [
        f"The numbers of {node} changed ({told}) and the version of stage {stage} is still 3:"
        " raise it, or undo the change; then record anew with `python tests/golden/record.py`."
    ]


def test_a_number_that_the_run_lacks_is_a_change():
    found = copy.deepcopy(RECORDED)
    del found["small"]["embed"]["numbers"]["embeddings"]
    (told,) = unexplained(RECORDED, found)
    assert "The numbers of embed changed (embeddings: 50.0 -> missing)" in told


def test_only_the_first_node_that_changed_is_told_for_the_others_are_built_on_it():
    found = _with("pretrain", loss=3.2)
    found["small"]["embed"]["numbers"]["embeddings"] = 60.0
    (told,) = unexplained(RECORDED, found)
    assert "numbers of pretrain" in told


def test_a_raised_version_explains_what_follows_and_asks_to_record_anew():
    found = _with("pretrain", loss=3.2, version=4)
    found["small"]["embed"]["numbers"]["embeddings"] = 60.0
    assert unexplained(RECORDED, found) == []
    assert outdated(RECORDED, found) == [
        "The numbers of pretrain are those of version 3 of stage pretrain, which is at 4:"
        " record anew with `python tests/golden/record.py`."
    ]


def test_a_version_raised_later_in_the_run_explains_nothing_before_it():
    found = _with("embed", version=4)
    found["small"]["pretrain"]["numbers"]["loss"] = 3.2
    (told,) = unexplained(RECORDED, found)
    assert "numbers of pretrain" in told


def test_a_node_that_is_gone_is_told():
    found = copy.deepcopy(RECORDED)
    del found["small"]["embed"]
    assert outdated(RECORDED, found) == [
        "The run 'small' no longer builds embed: bring it back, or record anew with"
        " `python tests/golden/record.py`."
    ]


def test_other_libraries_and_another_processor_are_told():
    assert made_elsewhere({"torch": "2.13.0"}, {"torch": "2.13.0", "numpy": "2.4"}) == []
    (told,) = made_elsewhere({"torch": "2.13.0"}, {"torch": "2.14.0"})
    assert "torch 2.13.0 (here 2.14.0)" in told and "--force" in told
