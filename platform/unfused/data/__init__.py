"""Parts: ingested clips as Parquet shards, and the windows that stream from them.

The rule of this room: memory stays bounded. A shard is written a row group at a time, and what
streams is blocks of fixed windows, never a data set. Readers import this and, with it, no torch.

    part      what a part is, and a worker's share of it
    writer    clips into a shard
    windows   clips and windows out of a shard, here and now
    blocks    the same through Ray Data, read ahead
    cache     a worker's own copy of some clips
    stream    the training batches of one worker, epoch after epoch
    embeddings  what a teacher made of a part's clips
    labels    what a labelled split says of itself, and which labels are looked at
"""

from unfused.data.blocks import clips_within, even_blocks
from unfused.data.cache import ClipCache
from unfused.data.embeddings import (
    embeddings_file,
    moments,
    read_embeddings,
    write_embeddings,
)
from unfused.data.labels import (
    LabelFacts,
    Labelled,
    all_draws,
    draw_labels,
    label_ids,
    short_classes,
    truth_in,
)
from unfused.data.part import (
    PartFacts,
    digests,
    may_be_kept,
    num_clips,
    rank_rows,
    shard_file,
)
from unfused.data.stream import Batch, ClipStream
from unfused.data.windows import Slice, even_block, read_clips, slices, whole_clips, windows_of
from unfused.data.writer import ShardWriter

__all__ = [
    "Batch",
    "ClipCache",
    "ClipStream",
    "LabelFacts",
    "Labelled",
    "PartFacts",
    "ShardWriter",
    "Slice",
    "all_draws",
    "clips_within",
    "digests",
    "draw_labels",
    "embeddings_file",
    "even_block",
    "even_blocks",
    "label_ids",
    "may_be_kept",
    "moments",
    "num_clips",
    "rank_rows",
    "read_clips",
    "read_embeddings",
    "shard_file",
    "short_classes",
    "slices",
    "truth_in",
    "whole_clips",
    "windows_of",
    "write_embeddings",
]
