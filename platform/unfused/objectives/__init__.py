"""Pre-training objectives: one file each, one protocol.

The rule of this room: a file here, apart from `protocol` and `gather`, is an objective and defines
`build(*, embedding_dim, rows, num_clips, options)`; a new objective is one new file and no more.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from unfused.objectives.protocol import Objective

NOT_OBJECTIVES = frozenset({"protocol", "gather"})


def names() -> tuple[str, ...]:
    """The objectives there are, sorted."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(sorted(found - NOT_OBJECTIVES))


def build(name: str, *, embedding_dim: int, rows: range, num_clips: int, options: Any) -> Objective:
    """One objective by name.

    Args:
        name: one of `names()`.
        embedding_dim: D, width of the encoder's clip vector.
        rows: the clips that this worker trains on, of all N.
        num_clips: N.
        options: has the attributes projector_hidden, projector_dim, temperature, num_prototypes,
            kmeans_iterations, redundancy_weight and seed; each objective reads those it knows.

    Raises:
        ValueError: there is no such objective.
    """
    if name not in names():
        raise ValueError(f"There is no objective {name!r}; choose from {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    return module.build(
        embedding_dim=embedding_dim, rows=rows, num_clips=num_clips, options=options
    )
