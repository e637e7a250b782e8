"""A part reads back what was written, and its windows are those of its clips."""

from __future__ import annotations

import numpy as np
import pytest
from numbered_clips import numbered_clips

from conftest import write_part
from unfused import data
from unfused.audio.samples import Cut
from unfused.data import PartFacts


@pytest.fixture
def part(tmp_path):
    return write_part(tmp_path / "part", numbered_clips(29))


def test_a_part_reads_back_what_was_written(part):
    pieces = data.slices(part, range(29), 5)
    read = [pair for piece in pieces for pair in data.read_clips(piece)]
    assert [index for index, _ in read] == list(range(29))
    for (_, samples), written in zip(read, numbered_clips(29), strict=True):
        np.testing.assert_array_equal(samples, written)


def test_clips_larger_than_a_row_group_read_back_too(tmp_path, monkeypatch):
    monkeypatch.setattr(data.writer, "ROW_GROUP_BYTES", 300)
    part = write_part(tmp_path / "part", numbered_clips(29))
    for piece in data.slices(part, range(2, 27), 5):
        for index, samples in data.read_clips(piece):
            np.testing.assert_array_equal(samples, numbered_clips(29)[index])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_workers_share_out_all_clips_evenly(part, world):
    rows = [data.rank_rows(29, rank, world) for rank in range(world)]
    assert [i for some in rows for i in some] == list(range(29))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    covered = [
        piece.first + i
        for some in rows
        for piece in data.slices(part, some, 4)
        for i in range(piece.rows)
    ]
    assert covered == list(range(29))


def test_only_a_small_share_is_kept(part, monkeypatch):
    bytes_ = 2 * sum(map(len, numbered_clips(29)))
    monkeypatch.setattr(data.part, "KEPT_BYTES", bytes_)
    assert data.may_be_kept(part, range(29))
    monkeypatch.setattr(data.part, "KEPT_BYTES", bytes_ - 1)
    assert not data.may_be_kept(part, range(29))
    assert data.may_be_kept(part, range(14))


def test_even_windows_cover_a_long_clip_from_end_to_end(tmp_path):
    clip = np.arange(1000, dtype=np.int16)
    part = write_part(tmp_path / "long", [clip])
    (piece,) = data.slices(part, range(1), 8)
    three = data.even_block(piece, Cut(100, 3))["samples"]
    assert [window[0] for window in three] == [0, 450, 900]
    (one,) = data.even_block(piece, Cut(100, 1))["samples"]
    assert one[0] == 450


def test_writing_a_shard_keeps_no_more_than_a_row_group(tmp_path):
    import pyarrow.parquet as pq

    long = [np.zeros(6_000_000, np.int16) for _ in range(8)]
    write_part(tmp_path / "big", long)
    file = pq.ParquetFile(tmp_path / "big" / "part-00000.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(sizes) * long[0].nbytes <= data.writer.ROW_GROUP_BYTES


def test_windows_of_a_few_clips_are_those_of_a_whole_pass(tmp_path):
    rng = np.random.default_rng(0)
    clips = [rng.integers(-9, 9, rng.integers(50, 300), dtype=np.int16) for _ in range(200)]
    part = write_part(tmp_path / "part", clips, per_shard=90)
    pieces = data.slices(part, range(200), 64)
    cut = Cut(100)
    blocks = [data.even_block(piece, cut) for piece in pieces]
    samples, clip = (np.concatenate([b[name] for b in blocks]) for name in ("samples", "clip"))
    assert np.array_equal(np.unique(clip), np.arange(200)) and len(clip) > 300
    for few in (np.array([5]), np.array([0, 63, 64, 89, 90, 199]), np.arange(0, 200, 7)):
        found = data.windows_of(part, few, cut)
        assert np.array_equal(found.samples, samples[np.isin(clip, few)])
        assert np.array_equal(found.counts, np.bincount(clip)[few])


def test_a_parts_facts_are_those_that_ingest_writes():
    facts = {"digest": "d", "shards": [3, 2], "seconds": 4.5, "audio": {"sample_rate": 16000}}
    facts["durations"] = [0.5, 0.8, 0.9, 1.0, 1.3]
    assert PartFacts.model_validate(facts).log_mel_mean is None
    with pytest.raises(ValueError, match="num_clips"):
        PartFacts.model_validate({**facts, "num_clips": 5})
