"""Linear probes on embeddings that stay as they are, and how far each can be trusted.

    probe   logistic regression on the few labels, cross-validated among them
    trust   what several probes together say of a clip

The rule of this room: no label counts but those of the draw at hand; NumPy and scikit-learn alone.
"""

from unfused.probing.probe import Folds, Probe, Probed, fit, softmax
from unfused.probing.trust import combine, opinion, weights

__all__ = ["Folds", "Probe", "Probed", "combine", "fit", "opinion", "softmax", "weights"]
