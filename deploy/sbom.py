"""Write a bill of materials of this environment: CycloneDX 1.6, JSON (`make sbom`).

The rule of this file: it reads what is installed and asks no service.
"""

from __future__ import annotations

import json
import sys
import uuid
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "unfused"


def bill() -> dict[str, Any]:
    """The bill: every package that is installed, and which others each requires."""
    parts = {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    components = {name: _component(name, part) for name, part in sorted(parts.items())}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {**components[OURS], "type": "application"},
        },
        "components": [one for name, one in components.items() if name != OURS],
        "dependencies": [
            {"ref": one["bom-ref"], "dependsOn": _below(parts[name], components)}
            for name, one in components.items()
        ],
    }


def _component(name: str, part: Distribution) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{quote(part.version, safe='')}"
    one = {"type": "library", "bom-ref": purl, "name": name, "version": part.version, "purl": purl}
    license = part.metadata.get("License-Expression")
    return one | ({"licenses": [{"expression": license}]} if license else {})


def _below(part: Distribution, components: dict[str, Any]) -> list[str]:
    """The references of the installed packages that one requires, by whichever extra."""
    names = {canonicalize_name(Requirement(text).name) for text in part.requires or ()}
    return sorted(components[name]["bom-ref"] for name in names - {OURS} if name in components)


def write(path: Path) -> None:
    """Write the bill to a file."""
    path.write_text(json.dumps(bill(), indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
