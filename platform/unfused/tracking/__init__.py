"""The store is the truth, MLflow is the index: where runs are looked up and compared.

    place       which MLflow, and whether it can be used
    tracker     takes events, and writes them on a thread of its own
    replay      tells MLflow what runs have left untold
    journal     what a run has to tell, kept beside the store until MLflow has it
    entries     what is in one, and what that does
    patience    calls of MLflow, tried again while it is away
    index       the runs of one pipeline run
    identity    what a run is, and how it is found again
    searches    how a search ends
    registry    the classifier as a registered model
    champions   which of its versions is to be used
    registered  the files of one, for a run that takes its encoder for a teacher

    names       what runs are called
    metrics     what is a metric, and what a tag
    notes       descriptions
    datasets    ingested clips as data sets
    tables      what the chosen classifier says of every clip
    views       what the list of runs opens on

The rule of this room: it and the registered model's own code alone import mlflow.
"""

from __future__ import annotations

from unfused.tracking.names import of_request, places
from unfused.tracking.patience import GivenUp, Patience
from unfused.tracking.place import (
    DEFAULT_URI,
    TrackingError,
    initialise,
    is_server,
    named,
    ui_address,
    ui_command,
)
from unfused.tracking.registered import registered_files
from unfused.tracking.registry import Classifier, model_name
from unfused.tracking.replay import Sent, replay
from unfused.tracking.tables import said
from unfused.tracking.tracker import Tracker

__all__ = [
    "DEFAULT_URI",
    "Classifier",
    "GivenUp",
    "Patience",
    "Sent",
    "Tracker",
    "TrackingError",
    "initialise",
    "is_server",
    "model_name",
    "named",
    "of_request",
    "places",
    "registered_files",
    "replay",
    "said",
    "ui_address",
    "ui_command",
]
