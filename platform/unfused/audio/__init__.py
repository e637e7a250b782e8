"""Waveforms: decoding, the log-mel front end and augmentation.

The rule of this room: it knows sound and arrays, neither files nor Ray.
"""
