"""`unfused config`: every setting with its value and meaning, or some of them explained.

The rule of this file: what is listed can be given back on a command line as it stands there.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from unfused.config import Config, Reference, reference, shown

SETTING_WIDTH = 48
"""Columns for a setting and its value, before what it means; few are longer."""
LINE_WIDTH = 96


def listed(config: Config) -> str:
    """A line for every setting, with its value and what it means."""
    lines = {f"{one.name}={shown(one.value)}": one.meaning for one in reference(config)}
    width = max(len(line) for line in lines if len(line) <= SETTING_WIDTH)
    return "\n".join(f"{line:{width}}  # {meaning}" for line, meaning in lines.items())


def explained(config: Config, keys: Sequence[str]) -> str:
    """Some lines for each of the settings that keys name: meaning, range and default.

    Raises:
        ConfigError: there is no such setting or section.
    """
    return "\n\n".join(_paragraph(one) for one in reference(config, keys))


def as_json(config: Config, keys: Sequence[str]) -> str:
    """The same for scripts: an object by dotted name; of every setting where there are no keys."""
    return json.dumps({one.name: _record(one) for one in reference(config, keys)})


def _paragraph(one: Reference) -> str:
    others = ", ".join(f"{preset}: {shown(value)}" for preset, value in one.presets.items())
    default = f"{shown(one.default)} ({others})" if others else shown(one.default)
    parts = [("", one.meaning), ("range    ", one.allowed), ("default  ", default)]
    lines = [line for head, text in parts for line in _wrapped(head, text)]
    return "\n".join([f"{one.name}={shown(one.value)}", *lines])


def _wrapped(head: str, text: str) -> list[str]:
    begin = "    " + head
    return textwrap.wrap(
        text, LINE_WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin)
    )


def _record(one: Reference) -> dict[str, Any]:
    return {
        "value": one.value,
        "default": one.default,
        "presets": dict(one.presets),
        "range": one.allowed,
        "meaning": one.meaning,
    }
