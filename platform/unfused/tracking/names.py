"""What runs are called: by what they are of, and by the settings in which they differ.

The rule of this file: a name is short and is read off the request; no name is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

from unfused import corpora
from unfused.config import PRESETS, Config, difference, preset, shown
from unfused.pipeline import Request

SHORT = {"cluster.num_clusters": "k", "distill.temperature": "T"}
"""Settings that come first, and the letters that papers have for them."""
MOST = 5
"""Settings that a name has room for."""


def titled(base: str, config: Mapping[str, Any], settings: Iterable[str]) -> str:
    """`base` and some settings with their values: `sounds k32 T3`.

    Args:
        base: what the run is of.
        config: every setting under its dotted name.
        settings: the names of those that are told; one that `config` has not is left out.
    """
    told = [name for name in settings if name in config]
    told.sort(key=lambda name: list(SHORT).index(name) if name in SHORT else len(SHORT))
    words = [_word(name, config) for name in told[:MOST]]
    more = [f"+{len(told) - MOST}"] if len(told) > MOST else []
    return " ".join([base, *words, *more])


def _word(name: str, config: Mapping[str, Any]) -> str:
    value = config[name]
    text = f"{value:g}" if isinstance(value, float) else shown(value)
    if name in SHORT:
        return f"{SHORT[name]}{text}"
    leaf = name.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == leaf for other in config) == 1
    return f"{leaf if alone else name}={text}"


def of_request(
    request: Request, settled: Callable[[Config], Config] = lambda config: config
) -> tuple[str, tuple[str, ...]]:
    """What a request is of, and the settings in which it differs from its preset.

    The preset is the one that fewest settings differ from, so that a name is as short as it can be;
    it is told where it is not the recommended one.

    Args:
        request: with the configuration as it runs.
        settled: makes a preset's configuration one as it runs.
    """
    differs = {
        name: tuple(difference(settled(preset(name)), request.config)) for name in PRESETS
    }
    nearest = min(differs, key=lambda name: len(differs[name]))
    base = [corpora.title(request.task)]
    if nearest not in ("recommended", *base):
        base.append(nearest)
    base += [f"seeds={request.seeds}"] if request.seeds > 1 else []
    base += ["folds"] if request.folds else []
    base += [_teacher(spec) for spec in request.specs]
    chosen = "arms" if request.specs else ""
    return " ".join(base), tuple(name for name in differs[nearest] if name != chosen)


def _teacher(spec: str) -> str:
    kind, _, what = spec.partition(":")
    return f"+{PurePath(what).stem if what else kind}"


def places(request: Request, demo: str) -> dict[str, str]:
    """The folders or manifests of the task and the corpus.

    Args:
        request: what was asked for.
        demo: the folder of both where none is named.
    """
    if request.task is None:
        return {"task": demo, "corpus": demo}
    return {"task": request.task} | ({"corpus": request.corpus} if request.corpus else {})
