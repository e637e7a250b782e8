"""From what a person asked for to artifacts in the store.

    request     what was asked for, and the clips that it names
    graph       nodes and edges, as plain data
    plan        every node's key, and whether the store has it
    run         builds what is missing
    healing     what is damaged in the store, set aside and built again meanwhile
    product     the model that a run leaves in the store
    record      what a run leaves in the store for whoever reports it

The rule of this room: what is decided is data before anything is built.
"""

from unfused.pipeline.graph import OWN, Given, Node, Ref, Teachers, graph
from unfused.pipeline.plan import Plan, Step
from unfused.pipeline.product import leave_model
from unfused.pipeline.record import Recorder
from unfused.pipeline.request import (
    Inputs,
    Request,
    Task,
    heard,
    read_inputs,
    repetitions,
    reseed,
)
from unfused.pipeline.run import Backend, Run, open_backend

__all__ = [
    "OWN",
    "Backend",
    "Given",
    "Inputs",
    "Node",
    "Plan",
    "Recorder",
    "Ref",
    "Request",
    "Run",
    "Step",
    "Task",
    "Teachers",
    "graph",
    "heard",
    "leave_model",
    "open_backend",
    "read_inputs",
    "repetitions",
    "reseed",
]
