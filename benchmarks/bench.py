"""Run the benchmarks in turn and write docs/performance.md: `make bench`.

python benchmarks/bench.py                  all of them
python benchmarks/bench.py frontend startup some of them
python benchmarks/bench.py --tables-only    rewrite the document from what is kept
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import harness
import tables

NAMES = ("frontend", "training_step", "streaming", "startup", "clustering", "memory", "teachers")
BY_THEMSELVES = (
    "together", "verifying", "search", "search_gain", "proxies", "predicting", "collection", "gpu",
)  # fmt: skip
"""Whose tables the document has too: they take longer, or another machine."""
DOCUMENT = harness.ROOT / "docs" / "performance.md"


def write_tables() -> list[str]:
    """Rewrite the document; returns the aims that were missed."""
    missed = []
    for name in (*NAMES, *BY_THEMSELVES):
        file = harness.RESULTS / f"{name}.json"
        if file.exists():
            kept = json.loads(file.read_text())
            machine = kept["host"]
            said = (
                f"`{kept['command']}` ({machine['date']}, {machine['cores']} cores,"
                f" {machine['processor']}, bfloat16 {'yes' if machine['bfloat16'] else 'no'},"
                f" load before {machine['load']}, {kept['seconds']:.0f} s)"
            )
            tables.replace(DOCUMENT, name, f"{said}\n\n{kept['text']}")
            missed += [f"{name}: {aim}" for aim in kept["missed"]]
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; all by default")
    parser.add_argument("--tables-only", action="store_true", help="run nothing")
    given = parser.parse_args()
    began = time.perf_counter()
    if not given.tables_only:
        for name in given.names or NAMES:
            print(f"== {name}", flush=True)
            program = harness.ROOT / "benchmarks" / f"{name}.py"
            subprocess.run([sys.executable, str(program)], cwd=harness.ROOT, check=True)
    missed = write_tables()
    print(f"\n{(time.perf_counter() - began) / 60:.1f} min; docs/performance.md is written.")
    print("\n".join(["Missed:", *missed]) if missed else "All aims are met.")


if __name__ == "__main__":
    main()
