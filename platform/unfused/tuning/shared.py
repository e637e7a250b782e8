"""Which nodes are the same in every trial of a search, and are built once before any.

The rule of this file: a node is shared only where all that it is built on is.
"""

from __future__ import annotations

from dataclasses import replace

from unfused.config import override
from unfused.pipeline import Plan, repetitions
from unfused.tuning.space import Space


def shared_nodes(plan: Plan, space: Space) -> set[str]:
    """The nodes that are the same in every trial: none of their settings, nor those of what they
    are built on, is in the space."""
    same = {name: step.node for name, step in plan.steps.items()}
    for changes in space.changes():
        request = replace(plan.request, config=override(plan.request.config, changes))
        graphs = repetitions(request, plan.inputs)
        other = {node.name: node for _, _, nodes in graphs for node in nodes}
        same = {name: node for name, node in same.items() if other.get(name) == node}
    shared: set[str] = set()
    for name, node in same.items():
        if all(ref.node in shared for ref in node.inputs.values()):
            shared.add(name)
    return shared
