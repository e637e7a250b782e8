"""Records the golden outputs anew: `python tests/golden/record.py`, some minutes.

The rule of this file: a number that changed under the same version is not recorded, unless
`--force` says that it is no change of the code: other versions of the libraries, say, or another
processor.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
FILE = TESTS / "golden" / "golden.json"
CPU = Path("/proc/cpuinfo")
PROCESSOR = ("model name", "cpu family", "model", "stepping", "cache size")
LIBRARIES = ("numpy", "scikit-learn", "torch", "torchaudio")


def read_recorded() -> dict[str, Any]:
    """What golden.json holds: `made_with` and `runs`."""
    return json.loads(FILE.read_text()) if FILE.exists() else {"made_with": {}, "runs": {}}


def measure(folder: Path) -> dict[str, Any]:
    """The same of now, by running the program in `folder`."""
    from golden.reading import read_nodes
    from golden.runs import run_all

    runs = {name: read_nodes(store, summary) for name, store, summary in run_all(folder)}
    return {"made_with": made_with(), "runs": runs}


def made_with() -> dict[str, str]:
    """Versions of the libraries that compute, and which processor did: names alone are of many."""
    told = CPU.read_text() if CPU.exists() else ""
    found = [re.search(rf"^{what}\s*: (.*)$", told, re.MULTILINE) for what in PROCESSOR]
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    words = [line[1] for line in found if line] or [platform.machine()]
    return {**versions, "processor": " / ".join(words)}


def main() -> None:
    sys.path.insert(0, str(TESTS))
    from golden.comparison import unexplained

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="also where no version was raised")
    force = parser.parse_args().force
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    told = unexplained(read_recorded()["runs"], found["runs"])
    if told and not force:
        sys.exit("\n".join(told))
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
