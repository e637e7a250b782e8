"""UnFuSeD on Ray: learn audio classifiers from few labels, and trust the numbers."""

__version__ = "0.1.0"
