"""Turns embeddings into pseudo-labels: whitening, then k-means behind one interface.

The rule of this room: everything streams or is bounded. Moments merge, k-means sees a sample of a
stated size, and labels come batch by batch; where the batches come from is not known here.
"""

from unfused.clustering.backends import Centroids, Fit, get, resolve
from unfused.clustering.model import ClusterModel, Description, describe, drop_empty
from unfused.clustering.whitening import Moments, Whitening

__all__ = [
    "Centroids",
    "ClusterModel",
    "Description",
    "Fit",
    "Moments",
    "Whitening",
    "describe",
    "drop_empty",
    "get",
    "resolve",
]
