"""What an actor imports, each of them pays for."""

from __future__ import annotations

import subprocess
import sys


def test_actors_know_of_no_store_and_no_settings():
    program = "import sys, unfused.actors; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    heavy = {"numpy", "pyarrow", "pydantic", "torch", "unfused.config", "unfused.store"}
    assert "unfused.actors" in loaded and not loaded & heavy
