"""Teachers of a pool that can be exported, one file a kind, named as in `unfused.teachers.kinds`.

The rule of this room: a file defines `module(folder, facts, sample_rate)`, which makes int16
numbers (B, S) of whole clips embeddings (B, D).
"""
