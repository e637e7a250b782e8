"""The rivals that a run scores on the same labels, as data: what each starts from, what it learns.

The rule of this file: it is the one place where an arm is named. The pipeline makes nodes of it;
search, report and registration ask here which arm is the method itself, and what its nodes are
called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["fresh", "teacher", "student", "clips"]
"""An encoder with random weights, the pre-trained one, a student of its pseudo-labels, or none: a
scorer that is fitted to the clips themselves."""
SCORED_BY = {"test": "evaluate", "valid": "validate"}
"""The nodes that score a split; those that look at validation clips are not called `evaluate`."""


@dataclass(frozen=True)
class Arm:
    """One way from the few labels to something that scores clips."""

    name: str
    meaning: str
    """One line, for people."""
    source: Source
    distill: Mapping[str, Any] = field(default_factory=dict)
    """What is different in its student's `distill` section."""
    finetune: Mapping[str, Any] = field(default_factory=dict)
    """What is different in its `finetune` section."""
    scorer: str = ""
    """The file of `scorers/` that is fitted, for an arm without an encoder."""

    @property
    def student(self) -> str:
        """The node that distills its student."""
        return f"distill/{self.name}"

    @property
    def classifier(self) -> str:
        """The node that makes what scores clips."""
        return f"{'fit' if self.scorer else 'finetune'}/{self.name}"

    def scores(self, split: str) -> str:
        """The node that scores it on a split."""
        return f"{SCORED_BY[split]}/{self.name}"


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("floor", "log-mel statistics and logistic regression", "clips", scorer="floor"),
        # Without a trained encoder there is nothing to freeze.
        Arm("scratch", "supervised from random weights", "fresh", finetune={"mode": "full"}),
        Arm("teacher", "the pre-trained encoder itself", "teacher"),
        # ClusterFit (Yan et al., CVPR 2020): the deep head's cross-entropy alone.
        Arm(
            "clusterfit",
            "a student with plain cross-entropy on the pseudo-labels",
            "student",
            distill={"shallow_weight": 0.0, "kl_weight": 0.0, "cosine_weight": 0.0},
        ),
        Arm("unfused", "a student by self-distillation: the method itself", "student"),
    )
}
METHOD = ARMS["unfused"]
"""The arm that a search tunes and that a run registers."""


def registered(arms: tuple[str, ...]) -> Arm:
    """The arm whose classifier a run registers: the method's, else the last one."""
    return METHOD if METHOD.name in arms else ARMS[arms[-1]]
