"""Recordings with tables of Raven and Audacity beside them, and Label Studio's export."""

from __future__ import annotations

import io
import json

import pytest

from unfused import corpora
from unfused.corpora import Columns, ManifestError
from unfused.inference.tables import row, write_audacity, write_raven

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


@pytest.fixture
def folder(tmp_path):
    """Three recordings, to which a test adds tables."""
    for name in ("night/a.wav", "night/b.WAV", "c.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def stretches(listing):
    return [
        (clip.name.partition("#")[0], clip.label, clip.start, clip.end) for clip in listing.clips
    ]


def raven(*rows: str, columns: str = "Species") -> str:
    return "\n".join([f"{RAVEN}\t{columns}", *rows]) + "\n"


def test_selection_tables_beside_recordings_are_read_as_they_are(folder):
    (folder / "night/a.Table.1.selections.txt").write_text(
        raven(
            "1\tWaveform 1\t1\t0.5\t1.25\t100\t900\towl",
            "1\tSpectrogram 1\t1\t0.5\t1.25\t100\t900\towl",
            "2\tSpectrogram 1\t1\t3\t4\t100\t900\tfox",
        )
    )
    (folder / "night/b.selections.txt").write_text(raven("1\tS\t1\t0\t2\t1\t9\towl"))
    listing = corpora.read(folder)
    assert stretches(listing) == [
        ("night/a.wav", "owl", 0.5, 1.25), ("night/a.wav", "fox", 3, 4),
        ("night/b.WAV", "owl", 0, 2), ("c.flac", None, None, None),
    ]  # fmt: skip
    a, b, c, bare = listing.clips
    assert a.group == b.group != c.group and bare.group is None
    assert a.size == 11 and a.path == str(folder / "night/a.wav")
    assert listing.notes == (
        "3 annotated stretches of 2 recordings; all of a recording stay in one split.",
        "1 recording has no annotation, and no label.",
    )


def test_one_table_of_many_recordings_says_which_and_where_in_them(folder):
    columns = "Begin Path\tFile Offset (s)\tscore\tcall"
    text = raven(
        "1\tS\t1\t10\t11\t1\t9\tC:\\field\\night\\a.wav\t2.5\t.9\towl",
        "2\tS\t1\t20\t22\t1\t9\tC:\\field\\c.flac\t0\t.8\tfox",
        columns=columns,
    )
    (folder / "all.txt").write_text(text)
    listing = corpora.read(folder / "all.txt")
    assert stretches(listing) == [("night/a.wav", "owl", 2.5, 3.5), ("c.flac", "fox", 0, 2)]


@pytest.fixture
def sites(tmp_path):
    """Recordings of the same names at two sites, as recorders that name them by the time do."""
    names = [f"{site}/day{n}/21.WAV" for site in ("siteA", "siteB") for n in (1, 2)]
    for name in (*names, "siteA/x.wav", "siteB/x.wav", "eX/x.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "tables").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("table", "file", "meant"),
    [
        ("tables/all.txt", "D:\\rec\\siteB\\day2\\21.WAV", "siteB/day2/21.WAV"),
        ("tables/all.txt", "/rec/siteB/x.wav", "siteB/x.wav"),
        ("tables/all.txt", "siteA/x.wav", "siteA/x.wav"),
        ("tables/siteB_day1.Table.1.selections.txt", "21.WAV", "siteB/day1/21.WAV"),
        ("tables/siteb-x.Table.1.selections.txt", "x.wav", "siteB/x.wav"),
        ("tables/siteB/day1.txt", "21.WAV", "siteB/day1/21.WAV"),
        ("siteA/day2/all.txt", "21.WAV", "siteA/day2/21.WAV"),
        ("siteA/day2/all.txt", "C:\\old\\21.WAV", "siteA/day2/21.WAV"),
        ("siteA/all.txt", "day1\\21.WAV", "siteA/day1/21.WAV"),
        ("eX/all.txt", "x.wav", "eX/x.wav"),
    ],
)
def test_of_recordings_of_one_name_a_table_means_that_of_its_path_or_place(
    sites, table, file, meant
):
    (sites / table).parent.mkdir(exist_ok=True)
    row = f"1\tS\t1\t0\t1\t1\t9\t{file}\towl"
    (sites / table).write_text(raven(row, columns="Begin Path\tcall"))
    assert stretches(corpora.read(sites))[0] == (meant, "owl", 0, 1)


@pytest.mark.parametrize(
    ("table", "file"),
    [
        ("tables/all.txt", "x.wav"),
        ("tables/all.txt", "D:\\rec\\siteC\\21.WAV"),
        ("tables/siteA.txt", "21.WAV"),
        ("tables/siteA_siteB.txt", "x.wav"),
        ("tables/siteAB.txt", "x.wav"),
        ("siteA/siteB.txt", "x.wav"),
    ],
)
def test_a_table_that_may_be_of_several_recordings_is_refused(sites, table, file):
    row = f"1\tS\t1\t0\t1\t1\t9\t{file}\towl"
    (sites / table).write_text(raven(row, columns="Begin Path\tcall"))
    told = r"has annotations of '.*', which may be '.*' or .*; put the table beside"
    with pytest.raises(ManifestError, match=told):
        corpora.read(sites)


@pytest.mark.parametrize("base", ["21.WAV", "1.WAV"])
def test_a_path_means_the_recording_of_its_folder_and_not_one_that_ends_like_it(sites, base):
    for name in ("21.WAV", "1.WAV", "siteB/21.WAV", "siteB/1.WAV"):
        (sites / name).write_bytes(name.encode())
    row = f"1\tS\t1\t0\t1\t1\t9\tD:\\rec\\siteB\\{base}\towl"
    (sites / "all.txt").write_text(raven(row, columns="Begin Path\tcall"))
    assert stretches(corpora.read(sites / "all.txt")) == [(f"siteB/{base}", "owl", 0, 1)]


def test_a_table_named_after_two_recordings_is_refused_until_it_has_the_ending(folder):
    (folder / "c.wav").write_bytes(b"c")
    (folder / "c.txt").write_text("0\t1\towl\n")
    with pytest.raises(ManifestError, match=r"'c.txt' may be of 'c.wav' or 'c.flac'; call it"):
        corpora.read(folder)
    (folder / "c.txt").rename(folder / "c.flac.txt")
    assert stretches(corpora.read(folder))[0] == ("c.flac", "owl", 0, 1)


@pytest.mark.parametrize("name", ["filename", "Audio File", "recording"])
def test_a_column_of_any_usual_name_says_which_recording_a_selection_is_of(folder, name):
    rows = "a.wav,0,1,owl\nnight/b.WAV,2,3,fox\n"
    (folder / "m.csv").write_text(f"{name},Begin Time (s),End Time (s),note of it\n{rows}")
    (folder / "c.txt").write_text(raven("1\tS\t1\t0\t1\t1\t9\tbad\telk", columns=f"{name}\tcall"))
    found = [("night/a.wav", "owl", 0, 1), ("night/b.WAV", "fox", 2, 3)]
    chosen = Columns(label="note of it")
    assert stretches(corpora.read(folder / "m.csv", chosen)) == found
    assert stretches(corpora.read(folder / "c.txt")) == [("c.flac", "elk", 0, 1)]


def test_the_column_of_recordings_may_be_named(folder):
    text = raven("1\tS\t1\t0\t1\t1\t9\tc.flac\ta.wav\towl", columns="Begin File\ttape\tcall")
    (folder / "all.txt").write_text(text)
    named = Columns(path="tape", label="call")
    assert stretches(corpora.read(folder / "all.txt", named)) == [("night/a.wav", "owl", 0, 1)]
    with pytest.raises(ManifestError, match=r"--path-column reel: 'all.txt' has no such column"):
        corpora.read(folder / "all.txt", Columns(path="reel"))


def test_the_column_of_labels_is_the_last_that_is_no_measurement_or_the_one_that_is_named(folder):
    text = raven("1\tS\t1\t0\t1\t1\t9\tx\towl\t3", columns="observer\tcall type\tPeak Freq (Hz)")
    (folder / "c.txt").write_text(text)
    assert corpora.read(folder).clips[0].label == "owl"
    assert corpora.read(folder, Columns(label="observer")).clips[0].label == "x"
    with pytest.raises(ManifestError, match="--label-column bird"):
        corpora.read(folder, Columns(label="bird"))
    (folder / "c.txt").write_text(raven("1\tS\t1\t0\t1\t1\t9\t3", columns="Peak Freq (Hz)"))
    with pytest.raises(ManifestError, match="no column of labels"):
        corpora.read(folder)


def test_selections_that_are_counted_anew_for_each_recording_are_all_read(folder):
    columns = "Begin File\tcall"
    (folder / "all.txt").write_text(
        raven("1\tS\t1\t0\t1\t1\t9\ta.wav\towl", "1\tS\t1\t2\t3\t1\t9\tb.WAV\tfox", columns=columns)
    )
    assert stretches(corpora.read(folder))[:2] == [
        ("night/a.wav", "owl", 0, 1),
        ("night/b.WAV", "fox", 2, 3),
    ]


def test_a_quotation_mark_in_a_selection_table_is_part_of_its_label(folder):
    (folder / "c.txt").write_text(raven('1\tS\t1\t0\t1\t1\t9\t"loud', "2\tS\t1\t2\t3\t1\t9\tsoft"))
    assert stretches(corpora.read(folder))[:2] == [
        ("c.flac", '"loud', 0, 1),
        ("c.flac", "soft", 2, 3),
    ]


def test_label_tracks_of_audacity_are_read_as_they_are(folder):
    track = "0.5\t1.5\towl\n\\\t100\t900\n2\t3\tfox hunt\n4\t4\tpoint\n5\t6\t\n"
    (folder / "c.txt").write_text(track)
    listing = corpora.read(folder)
    assert stretches(listing)[:2] == [("c.flac", "owl", 0.5, 1.5), ("c.flac", "fox hunt", 2, 3)]
    assert "2 annotations have no label or no length, and are left out." in listing.notes


def region(start: float, end: float, *labels: str) -> dict:
    return {"type": "labels", "value": {"start": start, "end": end, "labels": list(labels)}}


def test_a_label_track_in_any_bytes_is_read(folder):
    (folder / "c.txt").write_bytes(b"0\t1\tm\xfcll\n2\t3\tm\x81ll\n")
    assert [label for _, label, *_ in stretches(corpora.read(folder))][:2] == ["müll", "m\x81ll"]


def test_label_studios_export_is_read_as_it_is(folder):
    tasks = [
        {
            "data": {"audio": "/data/upload/1/0123abcd-a.wav"},
            "annotations": [
                {"result": [region(0, 1, "owl"), region(2, 3, "fox")]},
                {"was_cancelled": True, "result": [region(5, 6, "owl")]},
            ],
        },
        {
            "data": {"audio": "/data/local-files/?d=field%2Fc.flac"},
            "annotations": [{"result": [region(1, 2, "owl")]}],
        },
        {"data": {"audio": "gone.wav"}, "annotations": [{"result": [region(1, 2, "owl")]}]},
    ]
    (folder / "export.json").write_text(json.dumps(tasks))
    listing = corpora.read(folder / "export.json")
    assert stretches(listing) == [
        ("night/a.wav", "owl", 0, 1), ("night/a.wav", "fox", 2, 3), ("c.flac", "owl", 1, 2),
    ]  # fmt: skip
    assert listing.notes[0].startswith("1 annotated stretches are of recordings that are not there")
    told = [{"start": 0, "end": 1, "labels": ["owl"]}]
    short = [{"audio": "/data/upload/1/0123abcd-a.wav", "label": told}]
    (folder / "export.json").write_text(json.dumps(short))
    assert stretches(corpora.read(folder / "export.json")) == [("night/a.wav", "owl", 0, 1)]


def export(folder, *results: dict, audio: str = "a.wav") -> None:
    """A file of one task with these results."""
    tasks = [{"data": {"audio": audio}, "annotations": [{"result": list(results)}]}]
    (folder / "export.json").write_text(json.dumps(tasks))


def chosen(choice: str, **value) -> dict:
    return {"type": "choices", "value": {"choices": [choice], **value}}


def test_a_choice_for_a_region_is_an_attribute_beside_its_label(folder):
    owl, fox = {"id": "x", **region(0, 1, "owl")}, region(2, 3, "fox")
    loud = {"id": "x", **chosen("loud", start=0, end=1)}
    export(folder, loud, owl, fox, chosen("faint", start=2, end=3), chosen("far", start=5, end=6))
    listing = corpora.read(folder / "export.json")
    assert stretches(listing) == [("night/a.wav", "owl", 0, 1), ("night/a.wav", "fox", 2, 3)]
    assert listing.notes[:2] == (
        "3 choices (as 'loud') for regions of 'export.json' are attributes beside the labels, and"
        " no labels.",
        "1 annotations have no label or no length, and are left out.",
    )
    short = [
        {
            "audio": "a.wav",
            "loud": [{"start": 0, "end": 1, "choices": ["loud"]}],
            "label": [{"start": 0, "end": 1, "labels": ["owl"]}],
        }
    ]
    (folder / "export.json").write_text(json.dumps(short))
    assert stretches(corpora.read(folder / "export.json")) == [("night/a.wav", "owl", 0, 1)]


def test_choices_for_regions_are_labels_where_there_are_no_others(folder):
    export(folder, chosen("owl", start=0, end=1), chosen("fox", start=2, end=3))
    listing = corpora.read(folder / "export.json")
    assert stretches(listing) == [("night/a.wav", "owl", 0, 1), ("night/a.wav", "fox", 2, 3)]
    assert len(listing.notes) == 1
    export(folder, chosen("owl", start=0, end=1), chosen("loud", start=0, end=1))
    with pytest.raises(ManifestError, match=r"several labels \(owl, loud\)"):
        corpora.read(folder / "export.json")


def test_a_choice_for_a_whole_recording_is_no_label_beside_labelled_regions(folder):
    for label in (region(0, 1, "owl"), chosen("owl", start=0, end=1)):
        export(folder, label, chosen("good"))
        listing = corpora.read(folder / "export.json")
        assert stretches(listing) == [("night/a.wav", "owl", 0, 1)]
        assert listing.notes[0] == (
            "1 choices (as 'good') for whole recordings of 'export.json' stand beside labelled"
            " regions, and are no labels."
        )


def test_recordings_without_a_region_have_no_label_of_a_choice_that_others_have_beside_theirs(
    folder,
):
    results = {"a.wav": [region(0, 1, "owl"), chosen("good")], "c.flac": [chosen("bad")]}
    tasks = [{"data": {"audio": a}, "annotations": [{"result": r}]} for a, r in results.items()]
    (folder / "export.json").write_text(json.dumps(tasks))
    assert {label for _, label, *_ in stretches(corpora.read(folder))} == {"owl", None}


def result_of(**value) -> dict:
    return {"data": {"audio": "a.wav"}, "annotations": [{"result": [{"value": value}]}]}


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"audio": "a.wav", "annotations": "dog"}, "has 'dog' where annotations have regions"),
        ({"audio": "a.wav", "annotations": [7]}, r"has \[7\] where annotations"),
        ({"audio": "a.wav", "annotations": [{"result": {"a": 1}}]}, "has {'a': 1} where"),
        ({"audio": "a.wav", "annotations": [{"result": [{"value": None}]}]}, r"has \[None\] where"),
        (result_of(start="0:01", end="0:02", labels=["owl"]), "has '0:01' for the start of a reg"),
        (result_of(start=None, end=1, labels=["owl"]), "has None for the start of a region; give"),
        (result_of(start=1, labels=["owl"]), "has None for the end of a region; give seconds"),
        (result_of(choices=[[1, 2], [3]]), r"has \[1, 2\] for a label; give each a name"),
        (result_of(labels={"a": 1}), "has {'a': 1} for a label; give each a name"),
        ({**result_of(choices=["owl"]), "data": {"audio": "http://[::1/a.wav"}},
         r"has 'http://\[::1/a.wav' for its recording \(.*\); write a path or an address"),
        ({**result_of(choices=["owl"]), "data": {"audio": None}}, "names no recording; give"),
    ],
)  # fmt: skip
def test_a_task_that_is_none_of_label_studio_is_refused_by_its_number(folder, task, told):
    whole = {"data": {"audio": "c.flac"}, "annotations": []}
    (folder / "export.json").write_text(json.dumps([whole, task]))
    with pytest.raises(ManifestError, match=rf"^Task 2 of 'export.json' {told}.*\.$"):
        corpora.read(folder / "export.json")


def test_a_text_and_a_number_are_labels(folder):
    for told, label in (("owl", "owl"), ([1], "1"), ([" owl "], "owl"), (3, "3")):
        for name in ("labels", "choices"):
            export(folder, {"value": {"start": 0, "end": 1, name: told}})
            assert stretches(corpora.read(folder))[0] == ("night/a.wav", label, 0, 1)
    export(folder, {"value": {"start": 0, "end": 1, "choices": [1, 2]}})
    with pytest.raises(ManifestError, match=r"several labels \(1, 2\)"):
        corpora.read(folder)


def test_an_export_without_a_label_asks_for_one(folder):
    export(folder, region(0, 1))
    with pytest.raises(ManifestError, match=r"has a label and a length .* label stretches"):
        corpora.read(folder / "export.json")
    (folder / "export.json").write_text("[" * 100_000)
    with pytest.raises(ManifestError, match="no export of Label Studio"):
        corpora.read(folder / "export.json")


def test_an_address_beside_the_audio_is_no_recording(folder):
    value = {"start": 0, "end": 1, "labels": ["owl"]}
    task = {
        "data": {"page": "https://example.org/night", "audio": "/data/upload/1/0123abcd-a.wav"},
        "annotations": [{"result": [{"value": value}]}],
    }
    (folder / "export.json").write_text(json.dumps([task]))
    assert stretches(corpora.read(folder))[0] == ("night/a.wav", "owl", 0, 1)


def test_a_choice_for_a_whole_recording_is_its_label(folder):
    choice = {"type": "choices", "value": {"choices": ["owl"]}}
    tasks = [{"data": {"audio": "a.wav"}, "annotations": [{"result": [choice]}]}]
    (folder / "export.json").write_text(json.dumps(tasks))
    listing = corpora.read(folder / "export.json")
    assert stretches(listing) == [("night/a.wav", "owl", None, None)]


def test_a_region_with_several_labels_is_refused(folder):
    tasks = [{"data": {"audio": "a.wav"}, "annotations": [{"result": [region(0, 1, "a", "b")]}]}]
    (folder / "export.json").write_text(json.dumps(tasks))
    with pytest.raises(ManifestError, match="several labels"):
        corpora.read(folder / "export.json")


def test_tables_of_recordings_that_are_elsewhere_name_the_option(folder, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "a.txt").write_text("0\t1\towl\n")
    with pytest.raises(ManifestError, match="--audio-root"):
        corpora.read(tables / "a.txt")
    (folder / "night/a.txt").write_text("0\t1\towl\n")
    assert stretches(corpora.read(folder))[0] == ("night/a.wav", "owl", 0, 1)


def test_annotated_recordings_are_whole_in_a_corpus_and_each_is_there_once(folder):
    (folder / "c.txt").write_text("0\t1\towl\n2\t3\tfox\n")
    whole = corpora.read(folder, labelled=False).clips
    assert [(clip.name, clip.start) for clip in whole] == [
        ("c.flac", None), ("night/a.wav", None), ("night/b.WAV", None),
    ]  # fmt: skip
    _, bare = corpora.split_off_unlabelled(corpora.read(folder).clips)
    corpus = corpora.as_corpus([*bare, *whole])
    assert sorted(clip.name for clip in corpus) == ["c.flac", "night/a.wav", "night/b.WAV"]


@pytest.mark.parametrize(
    ("write", "name"), [(write_raven, "c.selections.txt"), (write_audacity, "c.labels.txt")]
)
def test_what_predict_writes_is_read_again(folder, write, name):
    told = [
        {**row(str(folder / "c.flac"), ""), "start": start, "end": start + 1, "label": "owl"}
        for start in (0.0, 2.5)
    ]
    out = io.BytesIO()
    write(out, (), [{**one, "probability": 0.9} for one in told])
    (folder / name).write_bytes(out.getvalue())
    found = stretches(corpora.read(folder))[:2]
    assert found == [("c.flac", "owl", 0, 1), ("c.flac", "owl", 2.5, 3.5)]
