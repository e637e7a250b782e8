"""Published data sets in miniature: their classes, splits, folds and groups, what is missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from unfused import corpora
from unfused.cli import app
from unfused.corpora import Clip, ManifestError, known

RATE = 16000


def sounds(root: Path, *names: str, seconds: float = 0.1) -> None:
    rng = np.random.default_rng(len(names))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        wave = rng.uniform(-0.5, 0.5, int(seconds * RATE))
        soundfile.write(root / name, wave, RATE, subtype="PCM_16")


def lines(root: Path, name: str, *rows: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(rows) + "\n")


def read(name: str, root: Path) -> tuple[dict[str, Clip], str]:
    """The clips by the ends of their names, and the notes."""
    listing = corpora.read(f"{name}:{root}")
    clips = {clip.name.rpartition("/")[2]: clip for clip in listing.clips}
    assert len(clips) == len(listing.clips)
    assert all(Path(clip.path) == root / clip.name and clip.size > 44 for clip in clips.values())
    return clips, "\n".join(listing.notes)


def facts(clip: Clip) -> tuple[str | None, ...]:
    return clip.label, clip.split, clip.group, clip.fold


@pytest.fixture
def commands(tmp_path) -> Path:
    """Four words of which two are no commands, and a recording of noise for each split."""
    words = [f"{w}/{who}_nohash_0.wav" for w in ("yes", "no", "bed", "wow") for who in "abc"]
    sounds(tmp_path, *words)
    lines(tmp_path, "validation_list.txt", "yes/b_nohash_0.wav", "bed/b_nohash_0.wav")
    lines(tmp_path, "testing_list.txt", "yes/c_nohash_0.wav", "bed/c_nohash_0.wav")
    noise = [f"_background_noise_/{n}.wav" for n in ("pink_noise", "running_tap", "exercise_bike")]
    sounds(tmp_path, *noise, seconds=2)
    lines(tmp_path, "_background_noise_/README.md", "noise")
    return tmp_path


def by_place(name: str, root: Path) -> dict[str, Clip]:
    return {clip.name: clip for clip in corpora.read(f"{name}:{root}").clips}


@pytest.mark.parametrize("name", ["speech_commands_v1", "speech_commands_v2"])
def test_words_are_split_by_the_two_lists_and_noise_is_no_word(commands, name):
    clips = by_place(name, commands)
    assert len(clips) == 12
    assert {clip.label for clip in clips.values()} == {"yes", "no", "bed", "wow"}
    assert facts(clips["yes/a_nohash_0.wav"]) == ("yes", "train", "a", None)
    assert facts(clips["bed/b_nohash_0.wav"]) == ("bed", "valid", "b", None)
    assert facts(clips["yes/c_nohash_0.wav"]) == ("yes", "test", "c", None)


def test_of_twelve_classes_other_words_are_unknown_and_noise_is_silence(commands):
    listing = corpora.read(f"speech_commands_v2_12:{commands}")
    words = {clip.name: clip for clip in listing.clips if clip.start is None}
    assert facts(words["bed/c_nohash_0.wav"]) == ("_unknown_", "test", "c", None)
    assert facts(words["no/c_nohash_0.wav"]) == ("no", "train", "c", None)
    noise = [clip for clip in listing.clips if clip.label == "_silence_"]
    assert {(clip.group, clip.split) for clip in noise} == {
        ("pink_noise", "train"),
        ("running_tap", "valid"),
        ("exercise_bike", "test"),
    }
    cuts = [(clip.start, clip.end) for clip in noise if clip.split == "test"]
    assert cuts == [(0, 1), (0.5, 1.5), (1, 2)]
    assert "exercise_bike.wav as _silence_" in "\n".join(listing.notes)


def test_the_published_test_set_is_the_one_that_twelve_classes_are_tested_on(commands):
    folder = "speech_commands_test_set_v0.02"
    sounds(commands, f"{folder}/yes/c_nohash_0.wav", f"{folder}/_unknown_/c_nohash_0.wav")
    sounds(commands, f"{folder}/_silence_/0.wav", seconds=1)
    clips = corpora.read(f"speech_commands_v2_12:{commands}").clips
    tested = {clip.name: clip.label for clip in clips if clip.split == "test"}
    assert tested == {
        f"{folder}/yes/c_nohash_0.wav": "yes",
        f"{folder}/_unknown_/c_nohash_0.wav": "_unknown_",
        f"{folder}/_silence_/0.wav": "_silence_",
    }
    silent = {clip.group for clip in clips if clip.start is not None and clip.split == "train"}
    assert silent == {"pink_noise", "exercise_bike"}
    assert len(by_place("speech_commands_v2", commands)) == 12


def test_a_chapter_is_kept_whole_where_its_speaker_read_three(tmp_path):
    chapters = {"19": (198, 227, 301), "26": (495,)}
    for speaker, read_ones in chapters.items():
        for chapter in read_ones:
            place = f"LibriSpeech/train-clean-100/{speaker}/{chapter}"
            sounds(tmp_path, *(f"{place}/{speaker}-{chapter}-{i:04d}.flac" for i in range(3)))
    sounds(tmp_path, "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac")
    clips, notes = read("librispeech_100", tmp_path)
    assert facts(clips["19-227-0001.flac"]) == ("19", None, "19-227", None)
    assert facts(clips["26-495-0000.flac"]) == ("26", None, None, None)
    assert len(clips) == 12
    assert "1 class lies in too few groups" in notes
    assert "12 of the 28,539 clips" in notes and "2 of its 251 classes" in notes


def test_voxceleb_is_split_by_its_list_wherever_its_parts_were_unpacked(tmp_path):
    ends = ["id10001/1zcIwhmdeo4/00001.wav", "id10001/7gWzIy6yIIk/00001.wav",
            "id10270/5r0dWxy17C8/00001.wav"]  # fmt: skip
    sounds(tmp_path, f"vox1_dev_wav/wav/{ends[0]}", f"vox1_dev_wav/wav/{ends[1]}")
    sounds(tmp_path, f"vox1_test_wav/wav/{ends[2]}")
    split = [f"{number} {end}" for number, end in zip("123", ends, strict=True)]
    lines(tmp_path, "iden_split.txt", *split, "3 id10270/gone/00001.wav")
    listing = corpora.read(f"voxceleb1:{tmp_path}")
    assert [facts(clip) for clip in listing.clips] == [
        ("id10001", "train", "id10001/1zcIwhmdeo4", None),
        ("id10001", "valid", "id10001/7gWzIy6yIIk", None),
        ("id10270", "test", "id10270/5r0dWxy17C8", None),
    ]
    missing = "1 of 4 files of its list are not there, the first 'wav/id10270/gone/00001.wav'"
    assert missing in "\n".join(listing.notes)


def test_excitement_is_happiness_and_other_emotions_are_counted(tmp_path):
    for session, emotions in ((1, ("ang", "exc", "fru")), (2, ("hap", "xxx", "neu"))):
        dialog = f"Ses0{session}F_impro01"
        turns = [f"{dialog}_{who}" for who in ("F000", "M000", "F001")]
        wavs = [f"Session{session}/sentences/wav/{dialog}/{turn}.wav" for turn in turns]
        sounds(tmp_path, *wavs)
        said = zip(turns, emotions, strict=True)
        told = [f"[6.2901 - 8.2357]\t{turn}\t{one}\t[2.5, 2.5, 2.5]" for turn, one in said]
        table = f"Session{session}/dialog/EmoEvaluation/{dialog}.txt"
        lines(tmp_path, table, "% [START_TIME - END_TIME] TURN_NAME EMOTION", *told, "C-E2:\tx;")
    clips, notes = read("iemocap", tmp_path)
    assert {name: facts(clip) for name, clip in clips.items()} == {
        "Ses01F_impro01_F000.wav": ("ang", None, "Ses01F", "1"),
        "Ses01F_impro01_M000.wav": ("hap", None, "Ses01M", "1"),
        "Ses02F_impro01_F000.wav": ("hap", None, "Ses02F", "2"),
        "Ses02F_impro01_F001.wav": ("neu", None, "Ses02F", "2"),
    }
    assert "2 of 6 utterances show another emotion" in notes


def test_a_speaker_of_voxforge_is_a_group_and_the_nameless_are_not_one(tmp_path):
    sounds(
        tmp_path,
        "de/ralfherzog-20070803-de1/wav/de1-01.wav",
        "en/Main/ralfherzog-20070803-en1/wav/en1-01.wav",
        "en/anonymous-20080504-qvg/wav/a0001.wav",
        "en/anonymous-20080505-abc/wav/a0002.wav",
    )
    clips, notes = read("voxforge", tmp_path)
    assert facts(clips["de1-01.wav"]) == ("de", None, "ralfherzog", None)
    assert facts(clips["en1-01.wav"]) == ("en", None, "ralfherzog", None)
    assert clips["a0001.wav"].group != clips["a0002.wav"].group
    assert "2 of its 6 classes" in notes


def test_nsynth_has_the_families_of_its_three_parts(tmp_path):
    for split, name, family in (("train", "bass_synthetic_033-022-050", "bass"),
                                ("test", "guitar_acoustic_010-066-100", "guitar")):  # fmt: skip
        sounds(tmp_path, f"nsynth-{split}/audio/{name}.wav")
        told = {"instrument_family_str": family, "instrument_str": name.partition("-")[0]}
        lines(tmp_path, f"nsynth-{split}/examples.json", json.dumps({name: told}))
    clips, notes = read("nsynth", tmp_path)
    expected = ("guitar", "test", "guitar_acoustic_010", None)
    assert facts(clips["guitar_acoustic_010-066-100.wav"]) == expected
    assert clips["bass_synthetic_033-022-050.wav"].split == "train"
    assert "nsynth-valid/examples.json is not there" in notes


@pytest.mark.parametrize(
    ("name", "table", "folder"),
    [
        ("freefield1010", "ff1010bird_metadata.csv", "wav"),
        ("freefield1010", "ff1010bird_metadata_2018.csv", "ff1010bird_wav/wav"),
        ("warblrb10k", "warblrb10k_public_metadata.csv", "wav"),
    ],
)
def test_there_is_a_bird_or_none(tmp_path, name, table, folder):
    sounds(tmp_path, f"{folder}/64486.wav", f"{folder}/2525.wav")
    lines(tmp_path, table, "itemid,hasbird", "64486,0", "2525,1")
    clips, _ = read(name, tmp_path)
    assert {n: clip.label for n, clip in clips.items()} == {
        "64486.wav": "no bird",
        "2525.wav": "bird",
    }


def test_scenes_are_tested_at_places_that_were_not_trained_on(tmp_path):
    names = ["audio/airport-barcelona-0-0-a.wav", "audio/park-vienna-93-2704-a.wav"]
    sounds(tmp_path, *names)
    lines(tmp_path, "evaluation_setup/fold1_train.txt", f"{names[0]}\tairport")
    lines(tmp_path, "evaluation_setup/fold1_evaluate.txt", f"{names[1]}\tpark")
    clips, _ = read("tut_urban_2018", tmp_path)
    assert facts(clips["airport-barcelona-0-0-a.wav"]) == ("airport", "train", "barcelona-0", None)
    assert facts(clips["park-vienna-93-2704-a.wav"]) == ("park", "test", "vienna-93", None)


def urbansound(root: Path, *, gone: int = 0) -> None:
    """Ten folds, a clip each; the last few are not there."""
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        file = f"{fold}00-3-0-0.wav"
        rows.append(f"{file},{fold}00,3.5,7.5,1,{fold},3,{('dog_bark', 'siren')[fold % 2]}")
        if fold <= 10 - gone:
            sounds(root, f"UrbanSound8K/audio/fold{fold}/{file}")
    lines(root, "UrbanSound8K/metadata/UrbanSound8K.csv", *rows)


def test_urbansound_has_its_ten_folds_and_the_recording_as_a_group(tmp_path):
    urbansound(tmp_path)
    clips, notes = read("urbansound8k", tmp_path)
    assert facts(clips["300-3-0-0.wav"]) == ("siren", None, "300", "3")
    assert clips["300-3-0-0.wav"].start is None, "its columns are of the recording it was cut from"
    assert corpora.folds(list(clips.values())) == [str(fold) for fold in range(1, 11)]
    assert "--folds" not in notes
    (single,) = corpora.read(f"urbansound8k:{tmp_path}").of_split
    assert "its own 10 folds (--folds)" in single and "not comparable" in single


def test_files_that_are_not_there_are_left_out_and_counted(tmp_path):
    urbansound(tmp_path, gone=2)
    clips, notes = read("urbansound8k", tmp_path)
    assert len(clips) == 8
    assert "urbansound8k: 2 of 10 files of its list are not there, the first" in notes
    assert "10 of the 8,732 clips" in notes and "8 of its 10 folds have clips here" in notes


@pytest.mark.parametrize(
    ("name", "labels"), [("esc50", {"dog": 5, "crow": 5}), ("esc10", {"dog": 5})]
)
def test_esc_has_five_folds_and_ten_of_its_classes_are_esc_10(tmp_path, name, labels):
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, (category, ten) in enumerate((("dog", True), ("crow", False))):
            file = f"{fold}-{fold}0{target}-A-{target}.wav"
            rows.append(f"{file},{fold},{target},{category},{ten},{fold}0{target},A")
            sounds(tmp_path, f"audio/{file}")
    lines(tmp_path, "meta/esc50.csv", *rows)
    clips, _ = read(name, tmp_path)
    assert Counter(clip.label for clip in clips.values()) == labels
    assert facts(clips["2-200-A-0.wav"]) == ("dog", None, "200", "2")


# What is said


@pytest.mark.parametrize("name", known.SETS)
def test_a_folder_that_does_not_hold_a_set_is_refused_in_a_sentence(tmp_path, name):
    lines(tmp_path, "words.txt", "nothing")
    with pytest.raises(ManifestError, match=r"^There is no .* below .*; give the folder .*\.$"):
        corpora.read(f"{name}:{tmp_path}")


def test_lists_without_audio_are_refused(tmp_path):
    urbansound(tmp_path, gone=10)
    with pytest.raises(ManifestError, match=r"None of the 10 files .* unpack its audio there\."):
        corpora.read(f"urbansound8k:{tmp_path}")


def test_a_list_that_is_not_as_published_is_refused(tmp_path):
    lines(tmp_path, "iden_split.txt", "train id10001/x/00001.wav")
    with pytest.raises(ManifestError, match=r"not as they were published \(KeyError"):
        corpora.read(f"voxceleb1:{tmp_path}")
    lines(tmp_path, "meta/esc50.csv", "filename,fold", "a.wav,1")
    with pytest.raises(ManifestError, match="no column 'category'"):
        corpora.read(f"esc50:{tmp_path}")


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("[]", "examples.json below .* is no JSON object; unpack NSynth"),
        ('{"a": 3}', "'a' of nsynth-train/examples.json below .* has no 'instrument_family_str'"),
        ('{"a": {"instrument_family_str": "bass", "instrument_str": null}}', "no 'instrument_str'"),
        ("{}", "The lists of NSynth.* name no clip; unpack it again"),
        ("", "not as they were published"),
        ("[" * 100_000, "not as they were published"),
    ],
)
def test_examples_that_are_not_as_published_are_refused(tmp_path, told, sentence):
    lines(tmp_path, "nsynth-train/examples.json", told)
    with pytest.raises(ManifestError, match=sentence):
        corpora.read(f"nsynth:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "file", "rows", "sentence"),
    [
        ("esc50", "meta/esc50.csv", [""], "no column 'filename'"),
        ("esc50", "meta/esc50.csv", ["filename,fold,category,esc10,src_file"], "name no clip"),
        ("freefield1010", "metadata.csv", ["itemid,hasbird", "1,"], "Line 2 of .* no 'hasbird'"),
        ("freefield1010", "metadata.csv", ["itemid,hasbird", "7"], "Line 2 of .* no 'hasbird'"),
        ("freefield1010", "metadata.csv", [f"itemid,hasbird,{'x' * 200_000}"], "not as they were"),
        ("voxceleb1", "iden_split.txt", [""], "name no clip"),
        ("iemocap", "Session1/dialog/EmoEvaluation/a.txt", ["x"], "name no clip"),
    ],
)
def test_tables_without_a_row_a_column_or_a_cell_are_refused(tmp_path, name, file, rows, sentence):
    lines(tmp_path, file, *rows)
    with pytest.raises(ManifestError, match=sentence):
        corpora.read(f"{name}:{tmp_path}")


def test_an_unknown_name_is_answered_with_those_known(tmp_path):
    with pytest.raises(ManifestError, match=r"no known data set 'urbansound9k'.*urbansound8k"):
        corpora.read(f"urbansound9k:{tmp_path}")


@pytest.mark.parametrize("source", ["urbansound8k", "urbansound8k:", "UrbanSound8K"])
def test_a_name_alone_asks_for_its_folder(source):
    with pytest.raises(ManifestError, match=r"say in which folder it lies, urbansound8k:DIR\."):
        corpora.read(source)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ManifestError, match="no folder"):
        corpora.read(f"esc50:{tmp_path / 'none'}")


@pytest.mark.parametrize("source", [r"C:\data\esc50", "C:/data", "s3://bucket/esc50", "data/esc50"])
def test_drives_uris_and_paths_are_no_names(source):
    assert not known.names(source)


def test_a_folder_that_is_called_like_a_set_is_a_folder(tmp_path, monkeypatch):
    sounds(tmp_path, "esc50/dog/a.wav", "odd:name/dog/a.wav")
    monkeypatch.chdir(tmp_path)
    assert [clip.label for clip in corpora.read("esc50").clips] == ["dog"]
    assert [clip.label for clip in corpora.read("odd:name").clips] == ["dog"]


def test_every_set_is_in_the_table_with_its_licence_and_in_the_json(monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    shown = CliRunner().invoke(app, ["datasets"]).stdout
    for one in known.SETS.values():
        (row,) = (line for line in shown.splitlines() if line.startswith(f"{one.name}:DIR "))
        assert (one.licence or "-") in row and one.title in row
    told = json.loads(CliRunner().invoke(app, ["datasets", "--json"]).stdout)
    assert list(told) == list(known.SETS)
    assert told["urbansound8k"]["num_clips"] == 8732 and told["urbansound8k"]["num_folds"] == 10
    assert told["voxforge"]["num_clips"] is None


def test_the_page_of_the_data_sets_names_them_all():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    assert [name for name in known.SETS if f"`{name}`" not in page] == []
