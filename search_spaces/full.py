"""Every stage up to the method's student at once: four spaces of this folder together."""

import runpy
from pathlib import Path

PARTS = ("pretraining", "augmentation", "clustering", "distillation")

space, conditions = {}, {}
for part in PARTS:
    names = runpy.run_path(str(Path(__file__).with_name(f"{part}.py")))
    space |= names["space"]
    conditions |= names.get("conditions", {})
objectives = {"valid_accuracy": "maximize"}
