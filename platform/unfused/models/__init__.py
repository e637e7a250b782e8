"""The encoder, the heads on it, and how their weights are kept."""
