"""Embeddings of a part as Parquet files, each of some clips in order.

Axes: B clips of one file, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np
import pyarrow.parquet as pq

from unfused.clustering import Moments
from unfused.store import Folder


def read_embeddings(folder: Folder) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clip indices (B,) and embeddings (B, D), in the order of the clips."""
    for info in folder.files():
        if not info.path.endswith(".parquet"):
            continue
        with folder.filesystem.open_input_file(info.path) as source:
            table = pq.read_table(source)
        clip = table["clip"].to_numpy()
        values = table["embedding"].combine_chunks().flatten().to_numpy()
        values = values.reshape(len(clip), -1)
        order = np.argsort(clip)
        yield clip[order], values[order]


def moments(folder: Folder) -> Moments:
    """Of all embeddings of a folder, a file in memory at a time."""
    return reduce(Moments.merge, (Moments.of(values) for _, values in read_embeddings(folder)))
