"""What a run shows where somebody watches: one live line a stage, and lines that stay.

The rule of this file: it only listens to events, and what a person has named, a file or a teacher,
is shown as it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from unfused import events
from unfused.display import (
    Plain,
    clock,
    code_line,
    concerns,
    ending,
    metrics,
    of_trial,
    time_left,
    trial_line,
)
from unfused.events import Event
from unfused.pace import Pace

WAITING = "waiting"
"""What a node does until a worker has taken it."""


def for_terminal(console: Console, chosen: Collection[str] | None = None) -> Plain | Live:
    """The display that suits where the output goes.

    Args:
        console: where that is.
        chosen: see `Plain`.
    """
    return Live(console, chosen) if console.is_terminal else Plain(chosen)


@contextmanager
def busy(console: Console, doing: str) -> Iterator[None]:
    """Say what goes on before there are events, where somebody watches."""
    if not console.is_terminal:
        yield
        return
    with console.status(escape(doing)):
        yield


class Live:
    """A live line for every stage that is running; finished ones stay as plain lines.

    Args:
        console: a terminal.
        chosen: see `Plain`.
    """

    def __init__(self, console: Console, chosen: Collection[str] | None = None) -> None:
        self._console, self._chosen = console, chosen
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[doing]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._phase: TaskID | None = None
        self._pace = Pace()
        self._bars.start()

    def close(self) -> None:
        """Take the live lines away."""
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case events.RunStarted():
                self._say(code_line(event))
            case events.Phase():
                self._wait_for(event.text)
            case events.NodeHit():
                self._say(event.node, "[green]=[/]", f"{event.key} already built")
            case events.NodeStarted():
                self._start(event.node)
            case events.Resumed():
                self._pace.start(event.node, event.epoch)
                self._say(f"{event.node} resumes after epoch {event.epoch}", "[yellow]>[/]")
            case events.Progress():
                self._progress(event)
            case events.EpochDone():
                self._epoch(event)
            case events.NodeFinished():
                self._end(event.node)
                built = f"{event.key} built in {clock(event.seconds)}"
                self._say(event.node, "[green]+[/]", built)
            case events.NodeFailed():
                self._end(event.node)
                stopped = event.given_up or event.reason == events.INTERRUPTED
                mark = "[yellow]-[/]" if stopped else "[red]x[/]"
                self._say(f"{event.node} {ending(event)}", mark)
            case events.OfTrial():
                inner = of_trial(event)
                if inner:
                    self(inner)
            case events.TrialEnded():
                self._say(trial_line(event))
            case events.Note() if concerns(event, self._chosen):
                self._say(event.text, "[yellow]![/]" if event.level == "warning" else "")

    def _say(self, text: str, mark: str = "", more: str = "") -> None:
        """A line that stays; the mark alone is rich's markup."""
        words = [mark, escape(text), f"[dim]{escape(more)}[/]" if more else ""]
        self._console.print(" ".join(word for word in words if word), highlight=False)

    def _add(self, name: str, doing: str) -> TaskID:
        return self._bars.add_task(name, total=None, doing=doing, left="", detail="")

    def _wait_for(self, text: str) -> None:
        if self._phase is not None:
            self._bars.remove_task(self._phase)
        self._phase = self._add(text, "") if text else None

    def _start(self, node: str) -> None:
        self._pace.start(node)
        self._tasks[node] = self._add(node, WAITING)

    def _end(self, node: str) -> None:
        if node in self._tasks:
            self._bars.remove_task(self._tasks.pop(node))

    def _progress(self, event: events.Progress) -> None:
        if event.node not in self._tasks:
            return
        if not event.total:
            self._begin(event.node)
            return
        standing = self._pace.standing(event)
        self._bars.update(
            self._tasks[event.node],
            total=1.0,
            completed=standing.share,
            doing=standing.doing,
            left=time_left(standing.left),
        )

    def _begin(self, node: str) -> None:
        """A worker has taken it, so there are workers."""
        self._wait_for("")
        task = next(task for task in self._bars.tasks if task.id == self._tasks[node])
        if task.fields["doing"] == WAITING:
            self._pace.start(node)
            self._bars.update(task.id, doing="at work")

    def _epoch(self, event: events.EpochDone) -> None:
        if event.node not in self._tasks:
            return
        self._bars.update(
            self._tasks[event.node],
            total=1.0,
            completed=event.epoch / event.num_epochs,
            doing=f"epoch {event.epoch}/{event.num_epochs}",
            left=time_left(self._pace.after(event.node, event.epoch, event.num_epochs)),
            detail=f"{metrics(event.metrics)}  {event.clips_per_second:.0f} clips/s",
        )
