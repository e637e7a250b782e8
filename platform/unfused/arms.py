"""The rivals that a run scores on the same labels, as data: what each starts from, what it learns.

The rule of this file: it is the one place where an arm is named. The pipeline makes nodes of it;
search, report and registration ask here which arm is the method itself, and what its nodes are
called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["clips", "probes", "fresh", "teacher", "student", "labels"]
"""What an arm is made of: a scorer that is fitted to the clips themselves, linear probes on what
teachers embed, an encoder with random weights, the pre-trained one, a student of its pseudo-labels,
or a student of the labels that the probes give all clips."""
BUILT_BY = {"clips": "fit", "probes": "combine", "labels": "selftrain"}
"""The stage that makes what scores clips, where it is not `finetune`."""
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
    selftrain: Mapping[str, Any] = field(default_factory=dict)
    """What is different in its `selftrain` section."""
    scorer: str = ""
    """The file of `scorers/` that is fitted, for an arm without an encoder."""
    members: Literal["best", "all"] = "all"
    """Of the probes, those that it is made of."""
    usual: Literal["always", "alone", "never"] = "always"
    """Whether a run has it unless told otherwise; alone: only where no teacher comes from outside,
    beside which it is far behind and takes most of the time."""

    @property
    def trusts(self) -> bool:
        """Whether it learns what trusted teachers say."""
        learns = self.source == "labels" and self.selftrain.get("label_weight") != 0
        return learns or self.source == "probes"

    @property
    def hears_student(self) -> bool:
        """Whether the student of the method is among those that it learns from."""
        return self.trusts and self.members == "all"

    @property
    def student(self) -> str:
        """The node that distills its student."""
        return f"distill/{self.name}"

    @property
    def classifier(self) -> str:
        """The node that makes what scores clips."""
        return f"{BUILT_BY.get(self.source, 'finetune')}/{self.name}"

    def scores(self, split: str) -> str:
        """The node that scores it on a split."""
        return f"{SCORED_BY[split]}/{self.name}"


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("floor", "log-mel statistics and logistic regression", "clips", scorer="floor"),
        # Without a trained encoder there is nothing to freeze.
        Arm(
            "scratch",
            "supervised from random weights",
            "fresh",
            finetune={"mode": "full"},
            usual="alone",
        ),
        Arm("teacher", "the pre-trained encoder itself", "teacher", usual="alone"),
        # ClusterFit (Yan et al., CVPR 2020): the deep head's cross-entropy alone.
        Arm(
            "clusterfit",
            "a student with plain cross-entropy on the pseudo-labels",
            "student",
            distill={"shallow_weight": 0.0, "kl_weight": 0.0, "cosine_weight": 0.0},
            usual="alone",
        ),
        Arm("unfused", "a student by self-distillation: the published method", "student"),
        Arm(
            "probe",
            "the most trusted teacher, frozen, with a linear head",
            "probes",
            members="best",
        ),
        Arm("mixture", "linear heads on all teachers, and neighbours, weighted by trust", "probes"),
        Arm(
            "selftrain",
            "a student of the labels that the trusted teachers give all clips",
            "labels",
        ),
        # FixMatch (Sohn et al., NeurIPS 2020) from random weights, with nothing of the recipe.
        Arm(
            "fixmatch",
            "semi-supervised from random weights, without teachers",
            "labels",
            selftrain={
                "start": "fresh",
                "label_weight": 0.0,
                "feature_weight": 0.0,
                "consistency_weight": 1.0,
                "mix": 0.0,
                "supervised_fraction": 1.0,
            },
            usual="never",
        ),
    )
}
DEFAULT = tuple(name for name, arm in ARMS.items() if arm.usual != "never")
"""The arms of a run without teachers from outside."""
BESIDE_OUTSIDE = tuple(name for name, arm in ARMS.items() if arm.usual == "always")
"""And of one with some."""
METHOD = ARMS["unfused"]
"""The published method, which a search tunes."""
STUDENT = ARMS["selftrain"]
"""One network that says what a pool of teachers says."""
PREFERENCE = (
    "mixture", "selftrain", "unfused", "clusterfit", "teacher", "probe", "scratch", "fixmatch",
    "floor",
)  # fmt: skip
"""Which is chosen of arms that cross-validation cannot tell apart; others come after these."""


def chosen(
    estimates: Mapping[str, Sequence[float] | None], num_draws: int, num_labels: int
) -> list[str]:
    """For every draw the first in `PREFERENCE` of the arms that are as good as the best.

    As good is whose cross-validated accuracy is within one standard error of the highest: the rule
    of Breiman et al., "Classification and Regression Trees" (1984), 3.4.3.

    Args:
        estimates: cross-validated accuracy of every draw by arm; none where it was not measured.
        num_draws: of the labels.
        num_labels: that a draw has, and that an estimate is a share of.

    Returns:
        An arm for every draw; where nothing was measured the one that comes first in `PREFERENCE`.
    """
    place = {arm: number for number, arm in enumerate(PREFERENCE)}
    ranked = sorted(estimates, key=lambda arm: place.get(arm, len(place)))
    measured = {arm: estimates[arm] for arm in ranked if estimates[arm] is not None}
    if not measured:
        return ranked[:1] * num_draws
    found = []
    for draw in range(num_draws):
        best = max(values[draw] for values in measured.values())
        least = best - standard_error(best, num_labels)
        found.append(next(arm for arm, values in measured.items() if values[draw] >= least))
    return found


def standard_error(share: float, count: int) -> float:
    """Of a share of so many: Agresti and Coull's (1998), which is not 0 where all or none are."""
    count, right = count + 4, count * share + 2
    return (right / count * (1 - right / count) / count) ** 0.5
