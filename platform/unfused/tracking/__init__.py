"""The store is the truth, MLflow is the index: where runs are looked up and compared.

    place       which MLflow, and whether it can be used
    tracker     takes events, and writes them on a thread of its own
    index       the runs of one pipeline run
    registry    the classifier as a registered model
    registered  the files of one, for a run that takes its encoder for a teacher

The rule of this room: it and the registered model's own code alone import mlflow.
"""

from __future__ import annotations

from unfused.tracking.place import DEFAULT_URI, TrackingError, initialise, ui_command
from unfused.tracking.registered import registered_files
from unfused.tracking.registry import model_name
from unfused.tracking.tracker import Tracker

__all__ = [
    "DEFAULT_URI",
    "Tracker",
    "TrackingError",
    "initialise",
    "model_name",
    "registered_files",
    "ui_command",
]
