"""What a trial can be judged by.

The rule of this room: no metric ever sees a test clip. A metric says which labels it looks at, and
the search counts them in its label budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Labels = Literal["none", "draw", "valid"]
"""Which labels are looked at: none, those of the draws that a classifier is fitted to, or those of
validation clips as well."""


@dataclass(frozen=True)
class Metric:
    """Attributes:
    meaning: one line.
    better: the direction in which a higher score ranks trials; for reports alone.
    labels: that are looked at.
    """

    meaning: str
    better: str
    labels: Labels = "none"


METRICS = {
    "valid_accuracy": Metric(
        "accuracy of the arm on validation clips, mean over draws", "maximize", "valid"
    ),
    "valid_balanced_accuracy": Metric(
        "mean recall of the classes, of the arm on validation clips", "maximize", "valid"
    ),
    "valid_macro_f1": Metric("macro-F1, likewise", "maximize", "valid"),
    "cross_validated": Metric(
        "accuracy of the arm on labelled clips that are left out in turn, mean over draws",
        "maximize",
        "draw",
    ),
    "student_seconds": Metric("seconds that the student's epochs took", "minimize"),
    "student_parameters": Metric("parameters of the student's encoder", "minimize"),
    "effective_rank": Metric(
        "effective rank of the student's embeddings of training clips (RankMe)", "maximize"
    ),
    "cluster_stability": Metric(
        "agreement (NMI) of two clusterings of those embeddings with different seeds", "maximize"
    ),
    "held_out_loss": Metric(
        "cross-entropy of validation clips' pseudo-labels, as a share of log k", "minimize"
    ),
}
PROXIES = ("cross_validated", "effective_rank", "cluster_stability", "held_out_loss")
"""Those that could stand for validation labels where there are none."""
