"""Look for better settings with Ray Tune and Optuna; a trial is a pipeline run (see --help)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from unfused.cli import main

if __name__ == "__main__":
    main(["search", *sys.argv[1:]])
