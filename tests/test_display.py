"""Plain output: one line per event, and a time left that can be believed."""

from __future__ import annotations

import time

from unfused import display
from unfused.events import EpochDone, NodeStarted, Note, Progress, Resumed, RunStarted


def _epoch(number: int) -> EpochDone:
    return EpochDone("pretrain", number, 10, {"loss": 2.5, "learning_rate": 1e-3}, 120.4)


def test_an_epoch_is_one_line_with_what_a_person_wants_to_know(capsys):
    show = display.Plain()
    show(NodeStarted("pretrain", "pretrain", "k1", {}, {}))
    show(_epoch(2))
    show(Progress("pretrain", 5, 10))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pretrain started k1"
    assert lines[1].startswith("pretrain epoch 2/10 loss 2.5 120 clips/s, ")
    assert len(lines) == 2


def test_the_time_left_of_a_resumed_stage_counts_only_the_epochs_of_this_run(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    show = display.Plain()
    show(NodeStarted("pretrain", "pretrain", "k1", {}, {}))
    show(Resumed("pretrain", 6))
    now[0] = 30.0
    show(_epoch(7))
    assert capsys.readouterr().out.splitlines()[-1].endswith("1:30 left")


def test_a_warning_is_marked(capsys):
    display.Plain()(Note("few points", "cluster", "warning"))
    assert capsys.readouterr().out == "warning: cluster: few points\n"


def test_pieces_of_work_side_by_side_are_counted_together():
    shown = display.Live(display.make_console())
    shown(NodeStarted("tune", "finetune", "k", {}, {}))
    for part, done in ((0, 1), (1, 1), (0, 3)):
        shown(Progress("tune", done, 8, "epochs", part=part))
    assert [task.fields["doing"] for task in shown._bars.tasks] == ["4/8 epochs"]
    shown.close()


def test_the_first_line_says_which_code_runs_and_in_what_precision():
    config = {"pretrain.precision": "bfloat16", "finetune.precision": "float32", "rounds": 2}
    record = {"code_digest": "aaaa", "git_commit": "b" * 40, "git_dirty": True}
    line = display.code_line(RunStarted(config, (), record))
    assert line == "code aaaa, commit bbbbbbbbbb with changes, bfloat16, float32"
    plain = RunStarted({"pretrain.precision": "float32"}, (), {"code_digest": "aaaa"})
    assert display.code_line(plain) == "code aaaa, float32"
