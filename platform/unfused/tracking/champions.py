"""Which version of a registered model is to be used: the aliases `champion` and `challenger`.

The rule of this file: a version's cross-validated accuracy over its own labels decides, never a
score on test clips, for what chooses by those can no longer be scored by them.

    the first version                                      champion
    a later one of the same task that is better            champion; the one before is challenger
    a later one of the same task that is not               challenger
    one of another task (labels or training clips differ)  no alias: the two cannot be compared
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHAMPION, CHALLENGER = "champion", "challenger"
TASK, ESTIMATE = "task", "cross_validated"
"""Tags of a version: the digest of label map and training clips, and the accuracy."""


def tags(task: str, estimate: float | None) -> dict[str, str]:
    """What a version has to say of itself so that later ones can be held against it."""
    return {TASK: task} | ({ESTIMATE: repr(estimate)} if estimate is not None else {})


def place(client: Any, name: str, version: str, mine: Mapping[str, str]) -> str:
    """Give a new version its alias, and say in a sentence why.

    Args:
        client: MLflow's.
        name: of the registered model.
        version: the new one.
        mine: its tags.
    """
    holder = _holder(client, name)
    if holder is not None and str(holder.version) == str(version):
        return "`champion` when it was registered."
    if holder is None:
        client.set_registered_model_alias(name, CHAMPION, version)
        return "The first of its name, hence `champion`."
    if holder.tags.get(TASK) != mine[TASK]:
        return (
            f"Of another task than the champion (version {holder.version}), hence without an alias."
        )
    ours, theirs = (float(t.get(ESTIMATE, "-inf")) for t in (mine, holder.tags))
    told = f"cross-validated {ours:.3f}, version {holder.version} {theirs:.3f}"
    if ours > theirs:
        client.set_registered_model_alias(name, CHALLENGER, holder.version)
        client.set_registered_model_alias(name, CHAMPION, version)
        return f"`champion` when it was registered ({told})."
    client.set_registered_model_alias(name, CHALLENGER, version)
    return f"`challenger` when it was registered ({told})."


def _holder(client: Any, name: str) -> Any:
    """The version that is champion; None where none is."""
    from mlflow import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None
