"""Embeddings of a part as Parquet files, each of some clips in order.

Axes: B clips of one file, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np
import pyarrow as pa

from unfused.clustering import Moments
from unfused.store import Folder, read_table, write_table


def embeddings_file(clip: np.ndarray) -> str:
    """Where the embeddings of the clips (B,) are, by the first of them."""
    return f"embeddings-{int(clip.min()):012d}.parquet"


def write_embeddings(folder: Folder, clip: np.ndarray, embedding: np.ndarray) -> None:
    """Write the embeddings (B, D) of the clips (B,) as one Parquet file, named after the first."""
    values = pa.FixedSizeListArray.from_arrays(pa.array(embedding.reshape(-1)), embedding.shape[1])
    table = pa.table({"clip": pa.array(clip), "embedding": values})
    write_table(folder, embeddings_file(clip), table, compression="NONE", use_dictionary=False)


def read_embeddings(folder: Folder) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clip indices (B,) and embeddings (B, D), in the order of the clips."""
    for name in folder.names():
        if not name.endswith(".parquet"):
            continue
        table = read_table(folder, name)
        clip = table["clip"].to_numpy()
        values = table["embedding"].combine_chunks().flatten().to_numpy()
        values = values.reshape(len(clip), -1)
        order = np.argsort(clip)
        yield clip[order], values[order]


def moments(folder: Folder) -> Moments:
    """Of all embeddings of a folder, a file in memory at a time."""
    return reduce(Moments.merge, (Moments.of(values) for _, values in read_embeddings(folder)))
