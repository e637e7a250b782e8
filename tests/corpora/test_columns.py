"""Manifests as people write them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unfused import corpora
from unfused.corpora import Columns, ManifestError


@pytest.fixture
def manifest(tmp_path):
    """`manifest(text)` is a manifest of `a.wav` and `b.wav`, which are there."""
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(name.encode())

    def write(text: str, name: str = "task.csv", encoding: str = "utf-8") -> str:
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write


def found(source, **columns):
    listing = corpora.read(source, Columns(**columns))
    return [(clip.path.rpartition("/")[2], clip.label) for clip in listing.clips]


DOG_CAT = [("a.wav", "dog"), ("b.wav", "cat")]


@pytest.mark.parametrize(
    "header",
    [
        "path,label", "file_name,label", "Path,Label", "audio,species", "path,class",
        "filename,category", "Filename,Class Name", "wav-path,labels", "recording,primary_label",
    ],
)  # fmt: skip
def test_usual_names_of_columns_are_understood(manifest, header):
    assert found(manifest(f"{header}\na.wav,dog\nb.wav,cat\n")) == DOG_CAT


def test_names_of_classes_go_before_their_numbers(manifest):
    text = "filename,fold,target,category\na.wav,1,0,dog\nb.wav,2,5,cat\n"
    listing = corpora.read(manifest(text))
    assert [(clip.label, clip.fold) for clip in listing.clips] == [("dog", "1"), ("cat", "2")]
    sliced = "slice_file_name,start,end,fold,classID,class\na.wav,0,1,1,3,dog\nb.wav,0,1,2,1,cat\n"
    clips = corpora.read(manifest(sliced)).clips
    assert [(c.label, c.start, c.end) for c in clips] == [("dog", None, None), ("cat", None, None)]


def test_where_it_is_not_plain_the_columns_are_listed_and_the_option_named(manifest):
    source = manifest("path,category,species\na.wav,x,dog\nb.wav,x,cat\n")
    with pytest.raises(ManifestError, match=r"'category' or 'species'.*--label-column"):
        corpora.read(source)
    assert found(source, label="species") == DOG_CAT
    with pytest.raises(ManifestError, match=r"no such column, only path, category, species"):
        corpora.read(source, Columns(label="bird"))
    source = manifest("sound,what\na.wav,dog\nb.wav,cat\n")
    with pytest.raises(ManifestError, match=r"only sound, what; .*--path-column"):
        corpora.read(source)
    assert found(source, path="sound", label="what") == DOG_CAT


def test_a_corpus_is_not_asked_for_labels(manifest):
    for text in (
        "path,category,species\na.wav,x,dog\nb.wav,x,cat\n",
        'path,label\na.wav,"dog,cat"\nb.wav,dog\n',
    ):
        with pytest.raises(ManifestError):
            corpora.read(manifest(text))
        clips = corpora.read(manifest(text), labelled=False).clips
        assert [clip.label for clip in clips] == [None, None]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_separators_and_encodings_of_spreadsheets_are_understood(manifest, separator, encoding):
    text = "path,label\na.wav,Hündin\nb.wav,cat\n".replace(",", separator)
    assert found(manifest(text, encoding=encoding)) == [("a.wav", "Hündin"), ("b.wav", "cat")]


def test_windows_code_page_is_read_and_told(manifest):
    listing = corpora.read(manifest("path,label\na.wav,Hündin\nb.wav,cat\n", encoding="cp1252"))
    assert listing.clips[0].label == "Hündin"
    assert "not UTF-8" in listing.notes[0]


def test_spaces_are_no_part_of_a_label_and_case_is_told(manifest):
    listing = corpora.read(manifest("path, label\na.wav, dog \nb.wav,Dog\nc.wav,cat\n"))
    assert [clip.label for clip in listing.clips] == ["dog", "Dog", "cat"]
    assert listing.notes == (
        "1 label has spaces around, which are no part of a label.",
        "Labels that differ in case alone are different classes: 'Dog' and 'dog'.",
    )


@pytest.mark.parametrize("row", ["c.wav,,", "c.wav,,unlabeled", "c.wav,x,unlabelled"])
def test_rows_without_a_label_are_unlabelled_and_counted(manifest, row):
    text = f"path,label,split\na.wav,dog,train\nb.wav,cat,test\n{row}\n"
    listing = corpora.read(manifest(text))
    assert [(c.label, c.split) for c in listing.clips] == [
        ("dog", "train"), ("cat", "test"), (None, None),
    ]  # fmt: skip
    assert listing.notes == ("1 row has no label, and joins the corpus.",)


@pytest.mark.parametrize("cell", ["dog,rain", "dog; rain", "dog|rain", "cat;wind"])
def test_several_labels_a_clip_are_refused(manifest, cell):
    source = manifest(f'path,label\na.wav,"{cell}"\nb.wav,rain\n')
    with pytest.raises(ManifestError, match=r"several labels in one cell.*not supported yet"):
        corpora.read(source)


@pytest.mark.parametrize("cell", ["dog+rain", "dog & rain", "dog/rain", "['dog', 'rain']"])
def test_several_labels_are_refused_however_they_are_joined(manifest, cell):
    source = manifest(f'path,label\na.wav,"{cell}"\nb.wav,rain\nc.wav,dog\n')
    with pytest.raises(ManifestError, match=r"several labels in one cell"):
        corpora.read(source)


def test_a_class_and_its_kinds_are_names(manifest):
    rows = ("birds/owl", "birds/wren", "birds", "bees & wasps")
    source = manifest("path,label\n" + "".join(f"{i}.wav,{row}\n" for i, row in enumerate(rows)))
    assert [label for _, label in found(source)] == list(rows)


@pytest.mark.parametrize("cell", ["A/B testing", "R&B", "C++", "rock & roll"])
def test_a_name_with_a_mark_in_it_is_a_name(manifest, cell):
    assert found(manifest(f"path,label\na.wav,{cell}\nb.wav,cat\n")) == [
        ("a.wav", cell), ("b.wav", "cat"),
    ]  # fmt: skip


def test_lists_of_one_label_as_text_are_labels(manifest):
    source = manifest("path,label\na.wav,['dog']\nb.wav,\"[\"\"cat\"\"]\"\nc.wav,[]\n")
    assert found(source) == [("a.wav", "dog"), ("b.wav", "cat"), ("c.wav", None)]


def test_bars_part_columns(manifest):
    assert found(manifest("path|label\na.wav|dog\nb.wav|cat\n")) == DOG_CAT


def test_times_of_a_clock_are_stretches(manifest):
    source = manifest("path,label,start,end\na.wav,dog,0:03,1:02.5\nb.wav,cat,1:00:00,1:00:01\n")
    times = [(clip.start, clip.end) for clip in corpora.read(source).clips]
    assert times == [(3.0, 62.5), (3600.0, 3601.0)]


def test_a_name_with_a_comma_is_a_name(manifest):
    assert found(manifest('path,label\na.wav,"Washington, D.C."\nb.wav,cat\n')) == [
        ("a.wav", "Washington, D.C."), ("b.wav", "cat"),
    ]  # fmt: skip


def test_lists_of_one_label_are_labels_and_lists_of_several_are_refused(manifest, tmp_path):
    manifest("")
    path = tmp_path / "task.parquet"
    pq.write_table(pa.table({"path": ["a.wav", "b.wav"], "label": [["dog"], ["cat"]]}), path)
    assert found(str(path)) == DOG_CAT
    pq.write_table(pa.table({"path": ["a.wav", "b.wav"], "label": [["dog", "cat"], ["cat"]]}), path)
    with pytest.raises(ManifestError, match=r"lists of several labels.*not supported yet"):
        corpora.read(str(path))


def test_json_lines_are_a_manifest(manifest):
    rows = [{"audio": "a.wav", "label": "dog"}, {"audio": "b.wav", "label": ["cat"], "x": 1}]
    text = "\n".join(map(json.dumps, rows))
    assert found(manifest(text, "task.jsonl")) == DOG_CAT


def test_columns_that_are_not_understood_are_listed_in_json_lines_too(manifest):
    source = manifest('{"sound": "a.wav", "label": "dog"}\n', "task.jsonl")
    with pytest.raises(ManifestError, match="only sound, label; name"):
        corpora.read(source)


def test_a_column_set_is_the_split_only_if_it_has_splits(manifest):
    listing = corpora.read(manifest("path,label,set\na.wav,dog,Train\nb.wav,cat,test\n"))
    assert [clip.split for clip in listing.clips] == ["train", "test"] and listing.notes == ()
    listing = corpora.read(manifest("path,label,set\na.wav,dog,train-clean\nb.wav,cat,test\n"))
    assert [clip.split for clip in listing.clips] == [None, None]
    assert listing.notes == ("The column 'set' is not taken for the split: it has 'train-clean'.",)


def test_a_speaker_is_a_group_unless_it_is_the_label(manifest):
    text = "path,label,speaker\na.wav,yes,s1\nb.wav,no,s1\n"
    listing = corpora.read(manifest(text))
    assert [clip.group for clip in listing.clips] == ["s1", "s1"]
    assert "'speaker'" in listing.notes[0]
    listing = corpora.read(manifest("path,label,speaker\na.wav,s1,s1\nb.wav,s2,s2\n"))
    assert [clip.group for clip in listing.clips] == [None, None]


def test_a_speaker_is_a_group_where_every_speaker_has_one_label(manifest):
    text = "path,client_id,gender\na.wav,x,m\nb.wav,y,m\nc.wav,z,f\n"
    clips = corpora.read(manifest(text), Columns(label="gender")).clips
    assert [clip.group for clip in clips] == ["x", "y", "z"]


def test_where_the_speaker_is_the_label_its_sessions_are_the_groups(manifest):
    text = "path,speaker,session\na.wav,x,1\nb.wav,x,2\nc.wav,y,3\n"
    listing = corpora.read(manifest(text), Columns(label="speaker"))
    assert [clip.group for clip in listing.clips] == ["1", "2", "3"]
    assert any("'session' is taken for the group" in note for note in listing.notes)


def test_a_quotation_mark_between_tabs_is_its_own_character(manifest):
    text = 'path\tsentence\tlabel\na.wav\t"Yes, he said.\tdog\nb.wav\tand left."\tcat\n'
    assert found(manifest(text, "task.tsv")) == DOG_CAT
    quoted = 'path\tlabel\n"a.wav"\t"dog ""big"""\n"b.wav"\tcat\n'
    assert found(manifest(quoted, "task.tsv")) == [("a.wav", 'dog "big"'), ("b.wav", "cat")]
    lines = 'path\tsentence\tlabel\na.wav\t"two\nlines"\tdog\nb.wav\tone\tcat\n'
    assert found(manifest(lines, "task.tsv")) == DOG_CAT


def test_comments_before_a_table_are_left_out_and_told_and_one_may_be_its_header(manifest):
    source = manifest("# made by hand\n# twice\npath,label\na.wav,dog\nb.wav,cat\n")
    assert found(source) == DOG_CAT
    assert any(note.startswith("2 lines that begin with #") for note in corpora.read(source).notes)
    commas = manifest("# by hand, twice\npath,label\na.wav,dog\nb.wav,cat\n")
    assert found(commas) == DOG_CAT
    header = '# version 1\n# path, start_seconds, label\na.wav, 0, "dog"\nb.wav, 1, "cat"\n'
    listing = corpora.read(manifest(header))
    assert [clip.label for clip in listing.clips] == ["dog", "cat"]
    assert any(note.startswith("1 line that begins with #") for note in listing.notes)


def test_of_two_columns_of_files_the_one_that_is_no_address_is_taken(manifest):
    text = "id,file,file-name,label\n1,https://a.org/1,a.wav,dog\n2,https://a.org/2,b.wav,cat\n"
    assert found(manifest(text)) == DOG_CAT


def test_numbers_that_are_none_are_no_labels_and_words_for_none_are_told(manifest, tmp_path):
    lines = '{"path": "a.wav", "label": NaN}\n{"path": "b.wav", "label": 1.0}\n'
    assert found(manifest(lines, "a.jsonl")) == [("a.wav", None), ("b.wav", "1")]
    table = pa.table({"path": ["a.wav", "b.wav"], "label": [float("nan"), 1.5]})
    pq.write_table(table, tmp_path / "task.parquet")
    assert found(str(tmp_path / "task.parquet")) == [("a.wav", None), ("b.wav", "1.5")]
    tenths = manifest('{"path": "a.wav", "label": 0.1}\n', "tenths.jsonl")
    assert found(tenths) == [("a.wav", "0.1")]
    words = corpora.read(manifest("path,label\na.wav,NaN\nb.wav,cat\nc.wav,N/A\n"))
    assert [clip.label for clip in words.clips] == ["NaN", "cat", "N/A"]
    assert any("'N/A' (1), 'NaN' (1)" in note for note in words.notes)


def test_rows_that_are_held_out_and_have_no_label_are_told_apart(manifest):
    text = "path,label,split\na.wav,dog,train\nb.wav,,train\nc.wav,,test\n"
    listing = corpora.read(manifest(text))
    assert "1 row has no label, and joins the corpus." in listing.notes
    assert "1 row of valid or test has no label: left out." in listing.notes


def test_a_row_that_repeats_another_is_left_out_and_told(manifest):
    listing = corpora.read(manifest("path,label\na.wav,dog\nb.wav,cat\na.wav,dog\n"))
    assert len(listing.clips) == 2
    assert "1 row repeats another, and is left out." in listing.notes


def test_groups_on_both_sides_of_the_manifests_own_split_are_told(manifest):
    text = "path,label,group,split\na.wav,dog,x,train\nb.wav,dog,x,test\nc.wav,dog,y,train\n"
    notes = corpora.read(manifest(text)).notes
    assert any(note.startswith("1 group is in train and in valid or test") for note in notes)


def test_times_in_milliseconds_and_offsets_with_durations_are_stretches(manifest):
    text = "path,label,start_ms,end_ms\na.wav,dog,500,1500\n"
    (clip,) = corpora.read(manifest(text)).clips
    assert (clip.start, clip.end) == (0.5, 1.5)
    line = '{"audio_filepath": "a.wav", "offset": 2, "duration": 1.5, "label": "dog"}\n'
    (clip,) = corpora.read(manifest(line, "task.jsonl")).clips
    assert (clip.start, clip.end) == (2.0, 3.5)
    alone = corpora.read(manifest("path,label,end\na.wav,dog,3\n"))
    assert alone.clips[0].end is None
    assert any("'end' has no begin beside it" in note for note in alone.notes)


def test_stretches_of_one_recording_are_clips_that_stay_together(manifest):
    text = "path,label,start,end\na.wav,dog,0.5,1\na.wav,cat,2,\na.wav,dog,0.5,1\nb.wav,cat,,\n"
    clips = corpora.read(manifest(text)).clips
    assert [(c.label, c.start, c.end) for c in clips] == [
        ("dog", 0.5, 1.0), ("cat", 2.0, None), ("cat", None, None),
    ]  # fmt: skip
    assert clips[0].group == clips[1].group is not None and clips[2].group is None
    assert len({clip.name for clip in clips}) == 3


def test_the_group_of_a_recording_survives_a_move(manifest):
    clips = corpora.read(manifest("path,label,start,end\na.wav,dog,0,1\na.wav,cat,2,\n")).clips
    assert [clip.group for clip in clips] == ["a.wav", "a.wav"]


def test_groups_that_share_a_recording_are_one(manifest):
    rows = "a.wav,dog,0,1,s1\nb.wav,dog,0,1,s2\na.wav,cat,1,2,s2\nc.wav,cat,0,1,s3\n"
    clips = corpora.read(manifest(f"path,label,start,end,group\n{rows}")).clips
    assert [clip.group for clip in clips] == ["s1", "s1", "s1", "s3"]


def test_a_duration_makes_a_stretch_and_a_beginning_alone_does_not(manifest):
    clips = corpora.read(manifest("path,label,onset,duration\na.wav,dog,1.5,2\n")).clips
    assert [(clip.start, clip.end) for clip in clips] == [(1.5, 3.5)]
    listing = corpora.read(manifest("path,label,start\na.wav,dog,1.5\n"))
    assert listing.clips[0].start is None and "'start' has no end" in listing.notes[0]


def test_what_spreadsheets_put_before_the_header_is_no_row(manifest):
    assert found(manifest("sep=;\npath;label\na.wav;dog\nb.wav;cat\n")) == DOG_CAT
    assert found(manifest("\n\npath,label\na.wav,dog\nb.wav,cat\n")) == DOG_CAT


def test_two_columns_of_one_name_are_refused(manifest, tmp_path):
    with pytest.raises(ManifestError, match="two columns 'label'"):
        corpora.read(manifest("path,label,label\na.wav,dog,cat\n"))
    columns = [pa.array([cell]) for cell in ("a.wav", "dog", "cat", "x", "y")]
    names = ["path", "label", "label", "note", "note"]
    pq.write_table(pa.table(columns, names=names), tmp_path / "task.parquet")
    with pytest.raises(ManifestError, match="two columns 'label'"):
        corpora.read(tmp_path / "task.parquet")
    del columns[2], names[2]
    pq.write_table(pa.table(columns, names=names), tmp_path / "task.parquet")
    assert found(str(tmp_path / "task.parquet")) == [("a.wav", "dog")]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a.wav,dog,2,1", "Row 1 .* ends at 1 s and begins at 2 s"),
        ("a.wav,dog,-1,1", "Row 1 .*'-1' for a time"),
        ("a.wav,dog,x,1", "Row 1 .*'x' for a time"),
        ("a.wav,dog,0,1\na.wav,cat,0,1", "label 'dog' and with 'cat'"),
    ],
)
def test_a_stretch_that_is_none_is_refused(manifest, row, told):
    with pytest.raises(ManifestError, match=told):
        corpora.read(manifest(f"path,label,start,end\n{row}\n"))


TIMES = ["StartTime,EndTime", "Start (s),End (s)", "start_sec,stop_sec", "tmin,tmax", "Beginn,Ende"]


@pytest.mark.parametrize("names", TIMES)
def test_begin_and_end_are_understood_by_the_names_that_programs_give_them(names, tmp_path):
    rows = [f"clip.wav,dog,{i},{i + 0.5}" for i in range(3)]
    (tmp_path / "m.csv").write_text("\n".join([f"path,label,{names}", *rows]))
    found = corpora.read(tmp_path / "m.csv")
    assert [(clip.start, clip.end) for clip in found.clips] == [(i, i + 0.5) for i in range(3)]


def test_milliseconds_are_told_by_the_name(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,Start (ms),End (ms)\nclip.wav,dog,250,1500\n")
    (clip,) = corpora.read(tmp_path / "m.csv").clips
    assert (clip.start, clip.end) == (0.25, 1.5)


def test_columns_that_look_like_times_of_one_file_are_not_left_out_as_repeats(tmp_path):
    rows = [f"clip.wav,dog,{i * 16000},{i * 16000 + 8000}" for i in range(3)]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,first_frame,last_frame", *rows]))
    with pytest.raises(ManifestError, match=r"'first_frame' and 'last_frame'.*`start`"):
        corpora.read(tmp_path / "m.csv")
    table = pa.table({"path": ["a.wav"] * 2, "label": ["dog"] * 2, "t0": [0, 5], "t1": [4, 9]})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="'t0' and 't1'"):
        corpora.read(tmp_path / "m.parquet")


def test_numbers_of_rows_that_repeat_are_no_times(tmp_path):
    rows = ["clip.wav,dog,7,0.5,320", "clip.wav,dog,8,0.25,320", "b.wav,cat,9,0.9,400"]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,id,confidence,kib", *rows]))
    found = corpora.read(tmp_path / "m.csv")
    assert len(found.clips) == 2 and any("1 row repeats" in note for note in found.notes)


def test_spans_and_times_of_day_in_parquet_are_seconds(tmp_path):
    spans = pa.array([1_500_000_000, 3_000_000_000], pa.duration("ns"))
    ends = pa.array([2_000, 4_000], pa.time32("ms"))
    table = pa.table({"path": ["a.wav"] * 2, "label": ["dog"] * 2, "start": spans, "end": ends})
    pq.write_table(table, tmp_path / "m.parquet")
    found = corpora.read(tmp_path / "m.parquet")
    assert [(clip.start, clip.end) for clip in found.clips] == [(1.5, 2.0), (3.0, 4.0)]


def test_rows_that_a_spreadsheet_has_emptied_are_no_rows(tmp_path):
    (tmp_path / "m.csv").write_text("path;label\na.wav;dog\n;\nb.wav;cat\n ; \n;\n")
    assert [clip.label for clip in corpora.read(tmp_path / "m.csv").clips] == ["dog", "cat"]


def test_letters_of_several_characters_are_the_class_of_those_of_one(tmp_path):
    one, two = "\u00e9t\u00e9", "e\u0301te\u0301"
    (tmp_path / "m.csv").write_text(f"path,label\na.wav,{one}\nb.wav,{two}\n", "utf-8")
    found = corpora.read(tmp_path / "m.csv")
    assert {clip.label for clip in found.clips} == {one}
    assert any("which are one class" in note for note in found.notes)
