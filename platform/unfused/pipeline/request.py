"""What a person asked for, and the clips that it names.

The rule of this file: it lists clips, and opens none but to tell copies from each other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from unfused import corpora, teachers
from unfused.arms import BESIDE_OUTSIDE, DEFAULT
from unfused.config import Config, ConfigError, RunOptions, override
from unfused.corpora import location
from unfused.corpora.clip import Clip
from unfused.data.recordings import has_sound, is_empty
from unfused.pipeline.graph import OWN, OWN_NAME, Given, Node, Teachers, graph
from unfused.probing.facts import STUDENT
from unfused.store import Folder, Store

FEW_BYTES = 256
"""A file of no more may be a header alone, and is looked into."""
SEEDED = ("pretrain", "cluster", "bootstrap", "distill", "finetune", "selftrain")
"""The sections whose seeds `--seeds` changes."""


@dataclass(frozen=True)
class Task:
    """The labelled clips of one repetition, and the prefix that tells its nodes apart."""

    clips: tuple[Clip, ...] = field(repr=False)
    prefix: str = ""
    dead: tuple[Clip, ...] = field(default=(), repr=False)
    """Files that are missing, or have no samples: they count for no split and no class, and are
    there to be quarantined."""

    @property
    def listed(self) -> tuple[Clip, ...]:
        """All of them."""
        return (*self.clips, *self.dead)


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    config: Config
    options: RunOptions
    corpus: str | None = None
    task: str | None = None
    seeds: int = 1
    folds: bool = False
    given: Mapping[str, Given] = field(default_factory=dict)
    """What stands for nodes, by name (see `graph.Given`)."""
    teachers: Teachers = OWN
    """Whose embeddings are clustered and trusted."""
    specs: tuple[str, ...] = ()
    """As they were named."""
    columns: corpora.Columns = field(default_factory=corpora.Columns)
    """What the manifests call their columns, and where their paths start."""
    dry: bool = False
    """Whether nothing is to be written, and so nothing can be built."""
    chosen: frozenset[str] = frozenset()
    """The settings that this person chose, by dotted name."""

    def __post_init__(self) -> None:
        for name in ("corpus", "task"):
            if place := getattr(self, name):
                # As it is told and kept: as text.
                object.__setattr__(self, name, location.spelled(place))


def heard(
    config: Config,
    specs: Sequence[str],
    store: Store,
    registered: Callable[[str], Folder] | None = None,
) -> tuple[Config, Teachers]:
    """The teachers that `--teacher` names, and the configuration with the arms that suit them.

    Args:
        config: as a person asked for it.
        specs: `own`, or as `teachers.read` takes them; none at all is `own`.
        store: of the run.
        registered: see `teachers.read`.

    Raises:
        ConfigError: a teacher cannot be used; two have one name; an arm that was asked for has no
            teacher.
    """
    outside: dict[str, teachers.Outside] = {}
    for spec in specs:
        if spec == OWN_NAME:
            continue
        found = teachers.read(spec, store, registered)
        name = found.facts.name
        if name in outside or name in (OWN_NAME, STUDENT):
            raise ConfigError(f"--teacher {spec}: two teachers are called {name!r}; rename a file.")
        outside[name] = found
    if outside and config.arms == DEFAULT:
        config = override(config, {"arms": BESIDE_OUTSIDE})
    who = Teachers(not specs or OWN_NAME in specs, outside)
    who.among(config)
    return config, who


@dataclass(frozen=True)
class Inputs:
    """The clips that a request names, as they are listed; the tasks are the folds, or just one."""

    corpus: tuple[Clip, ...] | None = field(repr=False)
    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()
    """What was understood, left out or merged while they were listed, a line each."""


def repetitions(
    request: Request, inputs: Inputs
) -> Iterator[tuple[str, Task, tuple[Node, ...]]]:
    """The graph of every task (or fold) and seed, after the prefix of its nodes' names."""
    for task in inputs.tasks:
        for seed in range(request.seeds):
            prefix = f"seed{seed}/" if request.seeds > 1 else ""
            nodes = graph(
                reseed(request.config, seed),
                has_corpus=inputs.corpus is not None,
                task_prefix=task.prefix,
                prefix=prefix,
                given=request.given,
                who=request.teachers,
            )
            yield f"{task.prefix}{prefix}", task, nodes


def reseed(config: Config, offset: int) -> Config:
    """The same configuration with other random numbers in every learned stage."""
    seeds = {f"{name}.seed": getattr(config, name).seed + offset for name in SEEDED}
    return override(config, seeds)


def read_inputs(request: Request, store: Store) -> Inputs:
    """The clips of the corpus, if there is one, and of the task, once for every fold; without a
    task those of the demo, which are made where they are not there yet (for a dry request in a
    folder that is gone when this returns).

    Clips of the task without a label join the corpus; what a task holds out is left out of it, by
    content.

    Raises:
        ConfigError: what was named cannot be read, or cannot be a corpus or a task.
    """
    if request.task is not None:
        return _read(request, request.corpus, request.task)
    if request.corpus is not None:
        raise ConfigError(
            "--corpus is the unlabelled half; name the labelled clips with --task as well."
        )
    demo = (store.root / "demo").uri
    if not request.dry:
        return _of_demo(_read(request, *corpora.demo_manifests(demo)))
    with tempfile.TemporaryDirectory() as scratch:
        return _of_demo(_read(request, *corpora.demo_manifests(demo, instead=scratch)))


def _of_demo(inputs: Inputs) -> Inputs:
    told = "No --task is named: these are the sounds that the demo makes."
    return replace(inputs, notes=(*inputs.notes, told))


def _read(request: Request, corpus_path: str | None, task_path: str) -> Inputs:
    listing = corpora.read(task_path, request.columns)
    labelled, unlabelled = corpora.split_off_unlabelled(listing.clips)
    if not labelled:
        columns = f" (its columns: {', '.join(listing.columns)})" if listing.columns else ""
        raise ConfigError(
            f"None of the {len(unlabelled)} clips of {task_path!r} has a label{columns}; name the"
            " column of the classes with --label-column, or give them as --corpus beside a task."
        )
    usable, dead = _alive(labelled)
    allowed = request.config.data.allow_overlap
    usable, repeats = corpora.without_repeats(usable, has_sound, allow_overlap=allowed)
    if not usable:
        raise ConfigError(
            f"No labelled clip of {task_path!r} is left: {repeats[-1].rstrip('.')}; keep each"
            " recording under one label."
        )
    tasks = _tasks(request, usable, dead)
    corpus, told = _corpus(request, corpus_path, unlabelled, tasks)
    notes = (*listing.notes, *(() if request.folds else listing.of_split), *repeats)
    return Inputs(corpus, tasks, (*notes, *_carved(usable, tasks), *told))


def _alive(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips whose files may have samples, and the others.

    Raises:
        ConfigError: they are all others.
    """
    lifeless = {
        clip.path
        for clip in clips
        if clip.size <= 0 or (clip.size <= FEW_BYTES and is_empty(clip.path))
    }
    usable = [clip for clip in clips if clip.path not in lifeless]
    dead = [replace(c, label=None, split="train") for c in clips if c.path in lifeless]
    if not usable:
        raise ConfigError(
            f"All {len(dead)} files of the task are missing or empty, the first:"
            f" {dead[0].path!r}; check the paths, or say with --audio-root where they start."
        )
    return usable, dead


def _carved(clips: Sequence[Clip], tasks: Sequence[Task]) -> Iterator[str]:
    """What is to be said of validation clips that the task's own split does not have."""
    own = {clip.split for clip in clips}
    if len(tasks) == 1 and None not in own and "valid" not in own:
        count = sum(clip.split == "valid" for clip in tasks[0].clips)
        train = sum(clip.split == "train" for clip in clips)
        yield f"The split has no valid: {count} of the {train} clips of train are taken for it."


def _tasks(
    request: Request, usable: Sequence[Clip], dead: Sequence[Clip]
) -> tuple[Task, ...]:
    """Labelled clips with their splits, once for every fold."""
    data = request.config.data
    if request.folds:
        split = {f"fold{f}/": corpora.for_fold(usable, f) for f in corpora.folds(usable)}
    else:
        shares = data.valid_fraction, data.test_fraction
        split = {"": corpora.assign(usable, *shares, data.split_seed)}
    for task in split.values():
        corpora.check_task(task)
    return tuple(Task(tuple(task), prefix, tuple(dead)) for prefix, task in split.items())


def _corpus(
    request: Request, path: str | None, unlabelled: Sequence[Clip], tasks: Sequence[Task]
) -> tuple[tuple[Clip, ...] | None, list[str]]:
    """What is pre-trained on beside the task, and what is to be said of it; none is the task's own
    training clips."""
    notes: list[str] = []
    clips = list(unlabelled)
    if path is not None:
        listing = corpora.read(path, request.columns, labelled=False)
        clips += listing.clips
        notes += [f"corpus: {note}" for note in listing.of_files]
    elif not clips:
        return None, notes
    elif len(tasks) == 1:
        clips += [clip for clip in tasks[0].clips if clip.split == "train"]
    clips = corpora.as_corpus(clips)
    if not request.config.data.allow_overlap:
        held_out = [c for task in tasks for c in task.clips if c.split in ("valid", "test")]
        before = len(clips)
        clips = corpora.without_copies(clips, held_out)
        if left_out := before - len(clips):
            are = "clip of the corpus is" if left_out == 1 else "clips of the corpus are"
            notes.append(f"{left_out} {are} held out by the task, and left out of the corpus.")
        if not clips:
            raise ConfigError(
                "The task holds out every clip of the corpus; give others, or leave --corpus out."
            )
    return tuple(clips), notes
