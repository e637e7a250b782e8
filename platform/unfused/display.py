"""What a run tells in plain lines, and the tables at its end.

The rule of this room: it only listens to events. Plain output has one line per event that a script
may wait for, and now and then one of what takes long. Where somebody watches, `terminal` shows the
same alive.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unfused import events
from unfused.events import Event
from unfused.pace import Pace
from unfused.secrets import hidden

PLAIN_WIDTH = 200
"""Columns of tables that go to a file: nothing is cut."""
SILENCE_SECONDS = 30.0
"""After so long without a line of a node, plain output says how far it is."""
SHOWN_VOICES = 5
"""Of those that trust listens to; the summary has them all."""
SCORES_SHOWN = (
    "valid_accuracy",
    "cross_validated",
    "effective_rank",
    "cluster_stability",
    "held_out_loss",
)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def code_line(event: events.RunStarted) -> str:
    """Which code runs, and how it computes.

    What was mounted or installed may be older than what one looks at, and `auto` depends on the
    machine.
    """
    record = event.provenance
    commit = f", commit {record['git_commit'][:10]}" if record.get("git_commit") else ""
    changed = " with changes" if record.get("git_dirty") else ""
    chosen = {str(value) for key, value in event.config.items() if key.endswith(".precision")}
    return ", ".join([f"code {record['code_digest']}{commit}{changed}", *sorted(chosen)])


def metrics(found: dict[str, float]) -> str:
    """The metrics of an epoch in a line."""
    shown = {k: v for k, v in found.items() if k != "learning_rate"}
    return " ".join(f"{name} {value:.4g}" for name, value in shown.items())


def note_line(event: events.Note) -> str:
    """A note as a plain line."""
    where = f"{event.node}: " if event.node else ""
    mark = "warning: " if event.level == "warning" else ""
    return f"{mark}{where}{event.text}"


def ending(event: events.NodeFailed) -> str:
    """How a node ended that was not built."""
    if event.given_up:
        return "given up"
    return "stopped" if event.reason == events.INTERRUPTED else f"failed: {event.reason}"


def time_left(seconds: float | None) -> str:
    """Empty where nobody knows."""
    return "" if seconds is None else f"{clock(seconds)} left"


def concerns(event: events.Note, chosen: Collection[str] | None) -> bool:
    """Whether a note is for who chose these settings; None is all of them."""
    return not event.setting or chosen is None or event.setting in chosen


class Plain:
    """One line per event, flushed; of progress no more than one in half a minute.

    Args:
        chosen: the settings that this person chose: who left a setting alone is not told of it.
            None is all of them.
    """

    def __init__(self, chosen: Collection[str] | None = None) -> None:
        self._pace, self._chosen = Pace(), chosen
        self._said: dict[str, float] = {}
        """When the last line of each node was."""

    def __call__(self, event: Event) -> None:
        line = self._line(event)
        if line:
            print(hidden(line), flush=True)

    def close(self) -> None:
        """Nothing is held open."""

    def _line(self, event: Event) -> str:
        if isinstance(event, events.OfTrial):
            inner = of_trial(event)
            return self._line(inner) if inner else ""
        if isinstance(event, events.Progress):
            return self._progress(event)
        if node := getattr(event, "node", ""):
            self._said[node] = time.monotonic()
        return self._told(event)

    def _told(self, event: Event) -> str:
        match event:
            case events.RunStarted():
                return code_line(event)
            case events.Phase():
                return event.text
            case events.NodeHit():
                return f"{event.node} hit {event.key}"
            case events.NodeStarted():
                self._pace.start(event.node)
                return f"{event.node} started {event.key}"
            case events.Resumed():
                self._pace.start(event.node, event.epoch)
                return f"{event.node} resumes after epoch {event.epoch}"
            case events.EpochDone():
                return self._epoch(event)
            case events.NodeFinished():
                return f"{event.node} built {event.key} in {event.seconds:.1f} s"
            case events.NodeFailed():
                return f"{event.node} {ending(event)}"
            case events.TrialEnded():
                return trial_line(event)
            case events.Note() if concerns(event, self._chosen):
                return note_line(event)
        return ""

    def _progress(self, event: events.Progress) -> str:
        if not event.total:
            return ""
        standing, now = self._pace.standing(event), time.monotonic()
        if now - self._said.setdefault(event.node, now) < SILENCE_SECONDS:
            return ""
        self._said[event.node] = now
        left = time_left(standing.left)
        share = f", {100 * standing.share:.0f} %" if event.num_epochs else ""
        return f"{event.node} {standing.doing}{share}{', ' if left else ''}{left}"

    def _epoch(self, event: events.EpochDone) -> str:
        left = time_left(self._pace.after(event.node, event.epoch, event.num_epochs))
        return (
            f"{event.node} epoch {event.epoch}/{event.num_epochs} {metrics(event.metrics)}"
            f" {event.clips_per_second:.0f} clips/s{', ' if left else ''}{left}"
        )


def of_trial(event: events.OfTrial) -> Event | None:
    """What is shown of a trial's event: its node with the trial's number, but no hits."""
    inner = event.event
    if isinstance(inner, events.NodeHit) or not getattr(inner, "node", ""):
        return None
    return replace(inner, node=f"trial {event.number} {inner.node}")  # type: ignore[call-arg]


def trial_line(event: events.TrialEnded) -> str:
    """One line for a trial that has ended."""
    said = event.outcome
    scores = said.get("scores", {})
    shown = " ".join(f"{name} {scores[name]:.3f}" for name in SCORES_SHOWN if name in scores)
    reason = f": {said['failed']}" if "failed" in said else ""
    cost = ""
    if "hits" in said:
        cost = (
            f"({said['hits']} hits, {said['built']} built in {said['seconds']:.0f} s,"
            f" {said['saved_seconds']:.0f} s saved)"
        )
    changes = " ".join(f"{key}={_shown(value)}" for key, value in event.changes.items())
    words = [f"trial {event.number} {event.state.lower()}{reason}", shown, cost, changes]
    return " ".join(word for word in words if word)


def trials_table(result: dict[str, Any]) -> Table:
    """The best trials of a search, the best first."""
    rows = {row["number"]: row for row in result["trials"]}
    leaders = [rows[number] for number in result["leaders"]]
    keys = list(dict.fromkeys(key for row in leaders for key in row["changes"]))
    leaves = [key.rpartition(".")[2] for key in keys]
    pairs = zip(keys, leaves, strict=True)
    columns = [key if leaves.count(leaf) > 1 else leaf for key, leaf in pairs]
    table = Table(box=None, pad_edge=False)
    for name in ("trial", *result["objectives"], *columns, "hits", "built", "seconds"):
        table.add_column(escape(name), overflow="fold")
    for row in leaders:
        values = [f"{value:.4g}" for value in row["values"]]
        settings = [escape(_shown(row["changes"].get(key, "-"))) for key in keys]
        cost = [str(row["hits"]), str(row["built"]), f"{row['seconds']:.0f}"]
        style = "bold" if row["number"] == result["best"]["number"] else ""
        table.add_row(str(row["number"]), *values, *settings, *cost, style=style)
    return table


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plan_table(rows: list[tuple[str, str, str, str]]) -> Table:
    """Node, key, status and needs of a dry run."""
    table = Table("node", "key", "status", "asks for", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def arms_table(summary: dict[str, Any]) -> Table:
    """The arms of a finished run, best last, and the chosen one below them; with balanced accuracy
    (the mean recall of the classes) where that is another number."""
    split, chosen = summary["scored_on"], summary["chosen"]
    arms = sorted(summary["arms"].items(), key=lambda item: item[1]["accuracy"]["mean"])
    uneven = any(_balanced(scores) != _spread(scores["accuracy"])[:1] for _, scores in arms)
    balanced = _balanced if uneven else lambda scores: ()
    headers = ("macro F1", "cross-validated", "chosen ahead by")
    first = ("arm", f"{split} accuracy", "sd", *(["balanced"] if uneven else []))
    table = Table(*first, *headers, box=None, pad_edge=False)
    for arm, scores in arms:
        table.add_row(
            arm,
            *_spread(scores["accuracy"]),
            *balanced(scores),
            f"{scores['macro_f1']['mean']:.3f}",
            _spread(scores["cross_validated"])[0],
            _ahead(chosen["ahead_of"][arm]),
        )
    told = (*_spread(chosen["accuracy"]), *balanced(chosen))
    table.add_row("chosen", *told, "", "", "", style="bold")
    return table


def _balanced(scores: dict[str, Any]) -> tuple[str, ...]:
    return _spread(scores["balanced_accuracy"])[:1]


def _spread(value: dict[str, Any] | None) -> tuple[str, str]:
    """Mean and standard deviation, a dash where there is none, as of a single draw."""
    if not value:
        return "-", "-"
    return f"{value['mean']:.3f}", f"{value['sd']:.3f}" if len(value["values"]) > 1 else "-"


def mean_and_sd(value: dict[str, Any]) -> str:
    """A mean, with its standard deviation where there are several values."""
    mean, sd = _spread(value)
    return mean if sd == "-" else f"{mean} ± {sd}"


def _ahead(difference: dict[str, Any]) -> str:
    """A mean difference with its interval; a dash where there is none, as of the chosen one."""
    if not any([difference["mean"], *(difference["interval"] or ())]):
        return "-"
    interval = difference["interval"]
    told = f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else ""
    return f"{difference['mean']:+.3f}{told}"


def choice_lines(summary: dict[str, Any]) -> list[str]:
    """Which arm was chosen, by what, and how far each teacher was trusted that was heard."""
    counts = Counter(summary["chosen"]["by_draw"])
    draws, labels = sum(counts.values()), summary["labels_per_draw"]["train"]
    told = ", ".join(
        arm if count == draws else f"{arm} in {count} of {draws} draws"
        for arm, count in counts.most_common()
    )
    split, chance = summary["scored_on"], f"{summary['chance']:.3f}"
    classes = summary["num_classes"]
    lines = [
        f"scored     on {summary['num_scored']} {split} clips of {classes} classes, of"
        f" which a guess gets {chance} right",
        f"chosen     {told}: by cross-validation over the {labels} labels of a draw, no others",
    ]
    if summary["trust"]:
        heard = [item for item in summary["trust"].items() if item[1]["weight"]]
        heard.sort(key=lambda item: -item[1]["weight"])
        told = ", ".join(f"{name} ({_trusted(one)})" for name, one in heard[:SHOWN_VOICES])
        more = f", {more} more" if (more := len(heard) - SHOWN_VOICES) > 0 else ""
        lines.append(f"trust      {told}{more} (cross-validated accuracy; weight)")
    return lines


def _trusted(one: dict[str, Any]) -> str:
    accuracy = "-" if one["accuracy"] is None else f"{one['accuracy']:.2f}"
    return f"{accuracy}; {one['weight']:.2f}"


class _Discreet(Console):
    """A console on which no text shows a secret."""

    def print(self, *objects: Any, **how: Any) -> None:
        shown = [hidden(one) if isinstance(one, str) else one for one in objects]
        super().print(*shown, **how)


def make_console(*, error: bool = False) -> Console:
    """A console on which no text shows a secret."""
    # A path or a SPEC may have :x: in it.
    console = _Discreet(stderr=error, soft_wrap=True, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
