"""The whole pipeline: pretrain, embed, cluster, distill, finetune, evaluate (see --help)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from unfused.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
