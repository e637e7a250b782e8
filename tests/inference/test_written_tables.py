"""What was said of recordings, as files that other programs read."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
import pytest

from unfused.config import ConfigError
from unfused.inference.prediction import Segment
from unfused.inference.tables import ROWS_TOGETHER, columns_of, opened, row, writer

CLASSES = ["a,b", "c"]
ROWS = [
    row("one.wav", "d1", Segment(0.0, 1.5, "a,b", {"a,b": 0.75, "c": 0.25})),
    row("one.wav", "d1", Segment(1.5, 2.0, "c", {"a,b": 0.125, "c": 0.875})),
    row("bad.wav", "", reason="missing"),
]


def written(out, rows=ROWS):
    with opened(str(out)) as file:
        writer(str(out))(file, columns_of(CLASSES), rows)
    return out


def test_csv_has_a_row_for_each(tmp_path):
    with written(tmp_path / "x.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [one["label"] for one in found] == ["a,b", "c", ""]
    assert float(found[1]["probability.c"]) == 0.875
    assert (found[2]["path"], found[2]["reason"], found[2]["probability.c"]) == (
        "bad.wav", "missing", "",
    )  # fmt: skip


def test_parquet_has_numbers_as_numbers_also_where_the_first_rows_have_none(tmp_path):
    found = pq.read_table(written(tmp_path / "x.parquet", [ROWS[2], *ROWS])).to_pylist()
    assert [one["label"] for one in found] == [None, "a,b", "c", None]
    assert found[2]["probability.c"] == 0.875 and found[0]["start"] is None


@pytest.mark.parametrize("unread", [0, 1, ROWS_TOGETHER, 2 * ROWS_TOGETHER])
def test_vectors_are_written_however_many_recordings_before_them_cannot_be_read(tmp_path, unread):
    told = {"path": "bad.wav", "digest": None, "reason": "missing"}
    rows = [*[told] * unread, {"path": "a.wav", "digest": "d", "reason": None, "embedding": [1, 2]}]
    with opened(str(tmp_path / "x.parquet")) as file:
        writer("x.parquet")(file, ["path", "digest", "reason", "embedding"], rows)
    found = pq.read_table(tmp_path / "x.parquet")["embedding"].to_pylist()
    assert found == [*[None] * unread, [1.0, 2.0]]


def test_a_parquet_table_without_rows_has_its_columns(tmp_path):
    found = pq.read_table(written(tmp_path / "x.parquet", []))
    assert found.num_rows == 0 and found.column_names == columns_of(CLASSES)


def test_json_lines_leave_out_what_is_not_known(tmp_path):
    lines = written(tmp_path / "x.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {"path": "bad.wav", "reason": "missing"}
    assert json.loads(lines[0])["probability.a,b"] == 0.75


def test_raven_and_audacity_get_moments_and_labels_alone(tmp_path):
    raven = written(tmp_path / "x.selections.txt").read_text().splitlines()
    assert raven[0].split("\t")[0] == "Selection" and len(raven) == 3
    assert raven[2].split("\t")[3:] == ["one.wav", "1.500", "1.500", "2.000", "c", "0.8750"]
    labels = written(tmp_path / "x.labels.txt").read_text().splitlines()
    assert labels == ["0.000\t1.500\ta,b", "1.500\t2.000\tc"]


@pytest.mark.parametrize("end", ["\t", "\n", "\r\n", "\u2028", "\x85", "\x0b"])
def test_no_name_breaks_a_row_of_raven_or_audacity(tmp_path, end):
    label = f"a{end}b"
    rows = [row(f"one{end}two.wav", "d", Segment(0.0, 1.5, label, {label: 1.0}))]
    space = " " * len(end)
    _, raven = written(tmp_path / "x.selections.txt", rows).read_text().splitlines()
    assert raven.split("\t")[3::4] == [f"one{space}two.wav", f"a{space}b"]
    (track,) = written(tmp_path / "x.labels.txt", rows).read_text().splitlines()
    assert track == f"0.000\t1.500\ta{space}b"


def test_a_label_track_of_two_recordings_is_refused_and_nothing_is_written(tmp_path):
    other = row("two.wav", "d2", Segment(0.0, 1.0, "c", {"a,b": 0.0, "c": 1.0}))
    with pytest.raises(ConfigError, match="of one recording"):
        written(tmp_path / "x.labels.txt", [*ROWS, other])
    assert not list(tmp_path.iterdir())


def test_a_name_may_be_as_long_as_the_file_system_has_it(tmp_path):
    out = written(tmp_path / ("a" * 251 + ".csv"))
    assert [*tmp_path.iterdir()] == [out] and len(out.read_text().splitlines()) == 4


@pytest.mark.parametrize("out", ["x.xlsx", "x"])
def test_a_file_of_no_known_kind_is_one_sentence(out):
    with pytest.raises(ConfigError, match="--out"):
        writer(out)


def test_entropy_is_that_of_a_guess_or_nothing():
    assert Segment(0, 1, "c", {"a": 0.0, "c": 1.0}).entropy == 0
    assert Segment(0, 1, "c", {"a": 0.5, "c": 0.5}).entropy == pytest.approx(0.6931, abs=1e-4)
