"""Kinds of scorers that can be exported, one file each; see `unfused.exporting`."""
