"""What a trial can be judged by.

The rule of this room: no metric ever sees a test clip. Those that need labels look at the labelled
validation clips, which the search counts in its label budget; the others at no label at all.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """Attributes:
    meaning: one line.
    better: the direction in which a higher score ranks trials; for reports alone.
    needs_labels: whether labels are looked at, those of validation clips among them.
    """

    meaning: str
    better: str
    needs_labels: bool = False


METRICS = {
    "valid_accuracy": Metric(
        "accuracy of the fine-tuned student on validation clips, mean over draws",
        "maximize",
        needs_labels=True,
    ),
    "valid_macro_f1": Metric("macro-F1, likewise", "maximize", needs_labels=True),
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
LABEL_FREE = ("effective_rank", "cluster_stability", "held_out_loss")
