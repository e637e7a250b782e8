"""What an artifact is known by.

The rule of this file: one spelling for one value, so that equal things have equal keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

KEY = re.compile(r"[0-9a-f]{16}")
"""What `artifact_key` gives."""


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def artifact_key(stage: str, version: int, config: Mapping, inputs: Mapping[str, str]) -> str:
    """Identity of what `stage` makes of these inputs: 16 hexadecimal digits."""
    parts = {"stage": stage, "version": version, "config": config, "inputs": dict(inputs)}
    return digest(parts)[:16]
