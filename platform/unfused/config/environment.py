"""What the environment says to every command, the variables that begin with UNFUSED_.

The rule of this file: no result depends on them, and one that cannot be understood is refused
before anything starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from unfused import speedups
from unfused.config.section import ConfigError


class Number(NamedTuple):
    """A whole number that may be set: what it is unless somebody does, and its range."""

    default: int
    least: int
    most: int


NUMBERS: Mapping[str, Number] = {"UNFUSED_KEPT_MIB": Number(512, 0, 2**24)}
"""UNFUSED_KEPT_MIB: MiB of clips that a worker keeps at hand."""


def number(name: str) -> int:
    """What a variable says, one of `NUMBERS`.

    Raises:
        ConfigError: that is no whole number, or out of range.
    """
    known, said = NUMBERS[name], os.environ.get(name, "").strip()
    try:
        found = int(said) if said else known.default
    except ValueError:
        found = known.least - 1
    if not known.least <= found <= known.most:
        raise ConfigError(
            f"{name}={said!r} is no whole number from {known.least} to {known.most}; correct or"
            f" unset it (it is {known.default} then)."
        )
    return found


def check() -> None:
    """Refuse variables that cannot be understood.

    Raises:
        ConfigError: of the first one.
    """
    for name in NUMBERS:
        number(name)
    said = os.environ.get(speedups.SWITCH, "all")
    unknown = sorted(set(filter(None, said.split(","))) - {"all", "none", *speedups.NAMES})
    if unknown:
        raise ConfigError(
            f"{speedups.SWITCH}={said!r} names {unknown[0]!r}; set it to all, none, or some of"
            f" {','.join(speedups.NAMES)}."
        )
