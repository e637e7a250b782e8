"""What a person asked for, and the clips that it names.

The rule of this file: it lists clips and opens none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from unfused import corpora, teachers
from unfused.arms import BESIDE_OUTSIDE, DEFAULT
from unfused.config import Config, ConfigError, RunOptions, override
from unfused.corpora.clip import Clip
from unfused.pipeline.graph import OWN, OWN_NAME, Given, Node, Teachers, graph
from unfused.probing.facts import STUDENT
from unfused.store import Folder, Store

SEEDED = ("pretrain", "cluster", "bootstrap", "distill", "finetune", "selftrain")
"""The sections whose seeds `--seeds` changes."""


@dataclass(frozen=True)
class Task:
    """The labelled clips of one repetition, and the prefix that tells its nodes apart."""

    clips: tuple[Clip, ...] = field(repr=False)
    prefix: str = ""


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
    chosen: frozenset[str] = frozenset()
    """The settings that this person chose, by dotted name."""


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
    """The clips of the corpus, if there is one, and of the task, once for every fold.

    Raises:
        ConfigError: what was named cannot be read, or cannot be a corpus or a task.
    """
    corpus_path, task_path = request.corpus, request.task
    if task_path is None and corpus_path is not None:
        raise ConfigError(
            "--corpus is the unlabelled half; name the labelled clips with --task as well."
        )
    if task_path is None:
        corpus_path, task_path = corpora.demo_manifests((store.root / "demo").uri)
    data = request.config.data
    clips = corpora.read(task_path).clips
    if request.folds:
        tasks = [
            Task(tuple(corpora.for_fold(clips, fold)), f"fold{fold}/")
            for fold in corpora.folds(clips)
        ]
    else:
        split = corpora.assign(clips, data.valid_fraction, data.test_fraction, data.split_seed)
        tasks = [Task(tuple(split))]
    for task in tasks:
        corpora.check_task(list(task.clips))
    if corpus_path is None:
        return Inputs(None, tuple(tasks))
    return Inputs(tuple(corpora.as_corpus(corpora.read(corpus_path).clips)), tuple(tasks))
