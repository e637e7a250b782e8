"""Plain output has one line per event, live output one a stage; the time left can be believed."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from unfused import display, terminal
from unfused.events import (
    INTERRUPTED,
    EpochDone,
    NodeFailed,
    NodeHit,
    NodeStarted,
    Note,
    Phase,
    Progress,
    Resumed,
    RunStarted,
    TrialEnded,
)


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


def test_what_takes_long_says_how_far_it_is_every_half_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    show = display.Plain()
    show(NodeStarted("tune", "finetune", "k", {}, {}))
    seen = ((10.0, 0, 1), (20.0, 1, 1), (40.0, 0, 2), (50.0, 1, 2), (71.0, 1, 3))
    for now[0], part, done in seen:
        show(Progress("tune", done, 8, "draws", part=part))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "tune 3/8 draws, 38 %, 1:15 left",
        "tune 5/8 draws, 62 %, 0:46 left",
    ]


def test_a_line_of_an_epoch_is_enough_for_half_a_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    show = display.Plain()
    show(NodeStarted("pretrain", "pretrain", "k1", {}, {}))
    now[0] = 25.0
    show(_epoch(1))
    for now[0], done in ((31.0, 10), (54.0, 60), (56.0, 70)):
        show(Progress("pretrain", done, 100, "clips", "epoch 2/10", 0, 1, 10))
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines == ["pretrain epoch 2/10, 17 %, 5:46 left"]


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
    shown = terminal.Live(display.make_console())
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


@pytest.fixture
def live(monkeypatch):
    """A live display, the clock that it looks at, and what it has printed for good."""
    now, out = [0.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    console = Console(file=out, width=200, emoji=False, soft_wrap=True)
    shown = terminal.Live(console, {"cluster.num_clusters"})
    yield shown, now, out
    shown.close()


def _now_shown(shown: terminal.Live) -> dict[str, str]:
    return {task.description: task.fields["doing"] for task in shown._bars.tasks}


def _left(shown: terminal.Live) -> str:
    (task,) = shown._bars.tasks
    return task.fields["left"]


def test_what_no_worker_has_taken_waits(live):
    shown, _, _ = live
    shown(NodeStarted("pretrain", "pretrain", "k", {}, {}))
    shown(NodeStarted("evaluate/x", "evaluate", "k", {}, {}))
    shown(Progress("pretrain", 0, 0))
    assert _now_shown(shown) == {"pretrain": "at work", "evaluate/x": "waiting"}
    shown(Progress("pretrain", 10, 40, "clips", "epoch 1/4", 0, 0, 4))
    shown(Progress("pretrain", 0, 0))
    assert _now_shown(shown)["pretrain"] == "epoch 1/4"


def test_the_time_left_moves_within_the_first_epoch(live):
    shown, now, _ = live
    shown(NodeStarted("pretrain", "pretrain", "k", {}, {}))
    now[0] = 30.0
    shown(Progress("pretrain", 0, 0))
    seen = []
    for now[0], done in ((50.0, 10), (60.0, 20), (70.0, 30)):
        shown(Progress("pretrain", done, 100, "clips", "epoch 1/4", 0, 0, 4))
        seen.append(_left(shown))
    assert seen == ["", "6:20 left", "6:10 left"], "waiting and reading do not count"
    (task,) = shown._bars.tasks
    assert task.percentage == pytest.approx(100 * 0.3 / 4)


def test_the_time_left_moves_within_what_has_no_epochs_and_goes_on_after_a_first_pass(live):
    shown, now, _ = live
    shown(NodeStarted("embed", "embed", "k", {}, {}))
    shown(Progress("embed", 10, 40))
    now[0] = 5.0
    shown(Progress("embed", 20, 40))
    assert _left(shown) == "0:10 left"
    shown(Progress("embed", 20, 40, "clips", "first pass", 0, 0, 0))
    assert _left(shown) == ""


def test_a_second_pass_over_the_same_clips_has_a_pace_of_its_own(live):
    shown, now, _ = live
    shown(NodeStarted("ingest/task", "ingest", "k", {}, {}))
    seen = []
    passes = ((0, 0, "reading"), (60, 40, "reading"), (70, 0, "decoding"), (80, 20, "decoding"))
    for now[0], done, doing in passes:
        shown(Progress("ingest/task", done, 40, doing=doing))
        seen.append(_left(shown))
    assert seen == ["", "0:00 left", "", "0:10 left"]


def test_the_first_seconds_say_what_they_are_until_a_worker_begins(live):
    shown, _, _ = live
    shown(Phase("starting Ray on this machine"))
    shown(Phase("starting workers"))
    assert list(_now_shown(shown)) == ["starting workers"]
    shown(NodeStarted("pretrain", "pretrain", "k", {}, {}))
    shown(Progress("pretrain", 0, 0))
    assert list(_now_shown(shown)) == ["pretrain"]


def test_an_interruption_is_no_failure(live, capsys):
    shown, _, out = live
    stopped = NodeFailed("pretrain", INTERRUPTED)
    shown(stopped)
    assert out.getvalue() == "- pretrain stopped\n"
    display.Plain()(stopped)
    display.Plain()(NodeFailed("pretrain", "out of memory"))
    assert capsys.readouterr().out == "pretrain stopped\npretrain failed: out of memory\n"


def test_what_people_have_named_is_printed_as_it_is_written(live):
    shown, _, out = live
    name = "teacher/[a] x.wav [/red]"
    shown(NodeHit(name, "teacher", "k", {}))
    shown(Note("/data/[a] x.wav is no audio", "", "warning"))
    shown(NodeFailed(name, "[b]no[/b]"))
    shown(TrialEnded(3, "FAIL", {"arms": "[own,other]"}, {"failed": "[a] x.wav"}))
    shown(NodeStarted(name, "teacher", "k", {}, {}))
    assert list(_now_shown(shown)) == [name]
    shown._bars.refresh()
    assert out.getvalue().splitlines()[:4] == [
        f"= {name} k already built",
        "! /data/[a] x.wav is no audio",
        f"x {name} failed: [b]no[/b]",
        "trial 3 fail: [a] x.wav arms=[own,other]",
    ]
    table = Console(file=(told := io.StringIO()), width=100)
    table.print(display.plan_table([(name, "k", "hit", "[x]")]))
    assert name in told.getvalue() and "[x]" in told.getvalue()


@pytest.mark.parametrize(("setting", "told"), [("num_clusters", True), ("num_components", False)])
def test_a_warning_about_a_setting_is_for_who_has_chosen_it(live, capsys, setting, told):
    shown, _, out = live
    note = Note("try another", "cluster", "warning", f"cluster.{setting}")
    shown(note)
    assert bool(out.getvalue()) == told
    display.Plain({"cluster.num_clusters"})(note)
    assert bool(capsys.readouterr().out) == told
    display.Plain()(note)
    assert capsys.readouterr().out == "warning: cluster: try another\n"


def _arms(accuracy: float, balanced: float) -> dict:
    """The summary of a run with one arm."""
    means = (accuracy, balanced, 0.25)
    right, even, f1 = ({"mean": mean, "sd": 0.0, "values": [mean]} for mean in means)
    scores = {"accuracy": right, "balanced_accuracy": even, "macro_f1": f1, "cross_validated": None}
    ahead = {"unfused": {"mean": 0.0, "interval": None}}
    chosen = {"accuracy": right, "balanced_accuracy": even, "ahead_of": ahead}
    return {"scored_on": "test", "arms": {"unfused": scores}, "chosen": chosen}


@pytest.mark.parametrize(("balanced", "told"), [(0.5, True), (0.9002, False)])
def test_balanced_accuracy_is_a_column_where_it_is_another_number(balanced, told):
    shown = Console(file=(out := io.StringIO()), width=100)
    shown.print(display.arms_table(_arms(0.9, balanced)))
    header, arm, chosen = out.getvalue().splitlines()
    assert ("balanced" in header) == ("0.500" in arm) == ("0.500" in chosen) == told
    assert "0.900" in arm and "0.900" in chosen


def test_a_single_draw_has_no_deviation():
    shown = Console(file=(out := io.StringIO()), width=100)
    shown.print(display.arms_table(_arms(0.9, 0.9)))
    row = next(line for line in out.getvalue().splitlines() if line.startswith("chosen"))
    assert row.split()[1:] == ["0.900", "-"]
    assert display.mean_and_sd({"mean": 0.5, "sd": 0.1, "values": [0.4, 0.6]}) == "0.500 ± 0.100"
    assert display.mean_and_sd({"mean": 0.5, "sd": 0.0, "values": [0.5]}) == "0.500"
