"""Classifiers of embeddings that stay as they are, and how far each can be trusted.

    probe        logistic regression on the few labels, cross-validated among them
    neighbours   the few labels, spread over all clips
    trust        what several of them together say of a clip

The rule of this room: no label counts but those of the draw at hand; NumPy, SciPy and
scikit-learn alone.
"""

from unfused.probing.neighbours import MAX_CLIPS, Near, Neighbours, Spread
from unfused.probing.probe import Folds, Probe, Probed, fit, share_right, softmax
from unfused.probing.trust import combine, opinion, untold, weights

__all__ = [
    "MAX_CLIPS",
    "Folds",
    "Near",
    "Neighbours",
    "Probe",
    "Probed",
    "Spread",
    "combine",
    "fit",
    "opinion",
    "share_right",
    "softmax",
    "untold",
    "weights",
]
