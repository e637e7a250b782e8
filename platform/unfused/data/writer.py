"""Writes clips into one shard of a part.

The rule of this file: no more than a row group is in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from unfused.data.part import SAMPLE, SCHEMA
from unfused.store import Folder, create_table

ROW_GROUP_CLIPS = 64
ROW_GROUP_BYTES = 32 * 2**20


class ShardWriter:
    """Writes clips to one shard with bounded memory."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._sink = folder.create(name)
        plain: dict[str, Any] = {"compression": "NONE", "use_dictionary": False}
        self._writer = create_table(self._sink, SCHEMA, write_statistics=["digest"], **plain)
        self._rows: list[tuple[str, np.ndarray]] = []
        self._bytes = 0

    def add(self, digest: str, samples: np.ndarray) -> None:
        """Append a clip: the digest of its bytes, and its samples (S,) int16."""
        if len(self._rows) == ROW_GROUP_CLIPS or self._bytes + samples.nbytes > ROW_GROUP_BYTES:
            self._flush()
        self._rows.append((digest, samples))
        self._bytes += samples.nbytes

    def _flush(self) -> None:
        if not self._rows:
            return
        digests, clips = zip(*self._rows, strict=True)
        offsets = np.cumsum([0, *(SAMPLE.itemsize * len(clip) for clip in clips)])
        data = np.concatenate(clips).astype(SAMPLE, copy=False)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        samples = pa.Array.from_buffers(pa.large_binary(), len(clips), buffers)
        self._writer.write_table(pa.table([pa.array(digests), samples], schema=SCHEMA))
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Write what is left; without this there is no shard."""
        self._flush()
        self._writer.close()
        self._sink.close()
