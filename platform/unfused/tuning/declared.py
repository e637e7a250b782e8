"""A search space as plain data: TOML or JSON, of which nothing is executed.

    [space]
    "cluster.num_clusters" = {low = 8, high = 256, log = true}
    "cluster.whiten" = {choices = [true, false]}

The rule of this file: it gives what a Python file would define, and knows no setting.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from unfused.config import ConfigError, shown

NAMES = ("space", "conditions", "objectives", "arm")
FORM = "write {low = 8, high = 256, log = true} or {choices = [8, 64]}, and keys in quotes"


def read(path: str) -> dict[str, Any]:
    """What a `.toml` or `.json` file defines: `space` as distributions, the rest as it stands.

    Two whole numbers are a range of whole numbers; a list among choices is a setting's list.

    Raises:
        ConfigError: one sentence, which names the file and the remedy.
    """
    try:
        names = READERS[Path(path).suffix](Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as a search space: {error}.") from None
    if not isinstance(names, dict):
        raise ConfigError(f"{path} is no table; it has {', '.join(NAMES)}.")
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"{path} has {name!r}, which is none of {', '.join(NAMES)}.")
    ranges = names.get("space")
    if isinstance(ranges, dict):
        names["space"] = {key: _distribution(path, key, one) for key, one in ranges.items()}
    return names


def _json(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no number")

    return json.loads(text, parse_constant=refuse)


READERS: Mapping[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": _json}


def _distribution(path: str, key: str, told: Any) -> BaseDistribution:
    match told:
        case {"choices": [*choices], **rest} if not rest and not any(map(_is_table, choices)):
            values = [shown(one) if isinstance(one, list) else one for one in choices]
            return _made(path, key, CategoricalDistribution, choices=values)
        case {"low": low, "high": high, **rest} if _is_range(low, high, **rest):
            whole = isinstance(low, int) and isinstance(high, int)
            return _made(path, key, IntDistribution if whole else FloatDistribution, **told)
    raise ConfigError(f"{path}: {key!r} is {told!r}; {FORM}.")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_range(low: Any, high: Any, log: Any = False, step: Any = 1, **others: Any) -> bool:
    numbers = all(map(_is_number, (low, high, step)))
    return numbers and isinstance(log, bool) and not others


def _made(path: str, key: str, kind: Callable[..., BaseDistribution], **how: Any) -> Any:
    try:
        return kind(**how)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().rstrip(".").replace("\n", " ")
        raise ConfigError(f"{path}: {key!r} cannot be read as a search space: {reason}.") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
