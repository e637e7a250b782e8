"""What a finished run is used by: its model, one folder, and what that says of any audio.

The rule of this room: it needs no Ray, no MLflow and no store; a model's folder can be copied to
another machine and read there. A clip is decoded, cut and scored as a run does it, by the same
code.
"""

from __future__ import annotations

from unfused.inference.folder import ModelFacts, read_facts, write
from unfused.inference.model import Model, load
from unfused.inference.prediction import Prediction, Segment
from unfused.inference.timeline import TimelineConfig

__all__ = [
    "Model",
    "ModelFacts",
    "Prediction",
    "Segment",
    "TimelineConfig",
    "load",
    "read_facts",
    "write",
]
