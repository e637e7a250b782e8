"""`unfused inspect`: what a run would find in a collection, before it is run.

The rule of this file: clips are listed, split, read and cut by the same lines as a run's; nothing
is written.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from unfused import cores, corpora, display, terminal
from unfused.commands.inspected import TASK, Found, Listed, Part
from unfused.commands.places import check_named
from unfused.config import ConfigError
from unfused.corpora.clip import Clip
from unfused.pipeline import Request, read_inputs
from unfused.stages.reading import CORPUS, Map, TooManyBadClips, read
from unfused.store import Store

FEW = 64
"""Files that are not worth the start of other processes."""


def inspect(request: Request, most: int, typed: Sequence[str] = ()) -> dict[str, Any]:
    """Show what a run would find, and return it.

    Args:
        request: as for a run; the corpus alone, where the task has no labels.
        most: files of each half that are opened, evenly chosen; 0 is all.
        typed: the preset and the settings, for the command that is to be run next.
    """
    columns = request.columns
    check_named({"DATA": request.task, "--corpus": request.corpus, "--audio-root": columns.root})
    check_named({"--path-column": columns.path, "--label-column": columns.label})
    console = display.make_console()
    with terminal.busy(console, "listing clips"):
        listed = _listed(request)
    parts = []
    with ExitStack() as stack:
        stack.enter_context(terminal.busy(console, "reading clips"))
        for name, clips in listed.halves.items():
            run = stack.enter_context(_workers(len(clips)))
            parts.append(_read(name, clips, request, run, most))
    listed = replace(listed, refused=listed.refused or _too_bad(parts))
    found = Found(request, listed, parts, typed)
    for line in found.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return found.plain()


def _too_bad(parts: Sequence[Part]) -> str:
    """Why a run would refuse what came of reading them, where all were read."""
    for part in parts:
        if part.opened == part.total:
            try:
                part.found.check()
            except TooManyBadClips as refusal:
                return str(refusal)
    return ""


def _listed(request: Request) -> Listed:
    """The clips as a run lists them; where it would refuse them, as they were found."""
    try:
        inputs = read_inputs(request, Store.at(request.options.store))
    except ConfigError as refusal:
        return _found(request, str(refusal))
    tasks = [task.clips for task in inputs.tasks]
    halves = {TASK: inputs.tasks[0].listed, CORPUS: inputs.corpus or ()}
    return Listed({name: some for name, some in halves.items() if some}, tasks, inputs.notes)


def _found(request: Request, refusal: str) -> Listed:
    """Clips without splits: of a task that is refused, or of what is a corpus, having no labels and
    nothing that could be some."""
    assert request.task is not None
    task = corpora.read(request.task, request.columns)
    if not any(clip.label for clip in task.clips) and len(task.columns) <= 1:
        return Listed({CORPUS: _unsplit(task.clips)}, (), task.notes)
    halves, notes = {TASK: _unsplit(task.clips)}, task.notes
    if request.corpus is not None:
        corpus = corpora.read(request.corpus, request.columns, labelled=False)
        halves[CORPUS] = _unsplit(corpus.clips)
        notes += tuple(f"{CORPUS}: {note}" for note in corpus.of_files)
    labels = Counter(clip.label for clip in task.clips if clip.label is not None)
    return Listed(halves, (), notes, labels, refusal)


def _unsplit(clips: Sequence[Clip]) -> list[Clip]:
    return [replace(clip, label=None, split=None) for clip in clips]


def _read(
    name: str, clips: Sequence[Clip], request: Request, run: Map, most: int
) -> Part:
    paths = list(dict.fromkeys(clip.path for clip in clips))
    if most and len(paths) > most:
        chosen = {paths[i * len(paths) // most] for i in range(most)}
        clips = [clip for clip in clips if clip.path in chosen]
    audio, ingest = request.config.audio, request.config.ingest
    found = read(clips, audio, ingest, run, None)
    return Part(name, found, len(paths), audio.sample_rate)


@contextmanager
def _workers(num_files: int) -> Iterator[Map]:
    """Calls functions here, or in a process for each core where there are many files."""
    if num_files <= FEW:
        yield _here
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores.available_cpus(), context) as pool:

        def there(
            rows: Sequence[str], task: Callable[[Any], dict[str, Any]], total: int, doing: str
        ) -> Iterator[dict[str, Any]]:
            for done in as_completed([pool.submit(_called, task, row) for row in rows]):
                yield done.result()

        yield there


def _here(
    rows: Sequence[str], task: Callable[[Any], dict[str, Any]], total: int, doing: str
) -> Iterator[dict[str, Any]]:
    return (_called(task, row) for row in rows)


def _called(task: Callable[[Any], dict[str, Any]], row: str) -> dict[str, Any]:
    return task(json.loads(row))
