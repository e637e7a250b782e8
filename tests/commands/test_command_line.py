"""A wrong request is one sentence and exit status 2, with nothing written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from conftest import TINY
from unfused import __version__, cli
from unfused.config import (
    PRESETS,
    Config,
    describe,
    flatten,
    override,
    parse_overrides,
    preset,
)
from unfused.pipeline import graph


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: status, and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
            raise SystemExit(0)
        out = capsys.readouterr()
        return stop.value.code or 0, out.err + out.out

    return run


def test_a_place_with_brackets_is_said_as_it_is_called(command, tmp_path):
    (tmp_path / "my [a] store").mkdir()
    status, said = command("sync", "--store", "my [a] store")
    assert status == 0 and f"{tmp_path}/my [a] store." in said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:none"])
@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_said_at_once(program, address):
    one = program("gone")
    one.extra = {"RAY_ADDRESS": address}
    refused = one("--preset", "demo", timeout=60)
    assert refused.returncode == 2
    assert address in refused.stderr and "unset RAY_ADDRESS" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(one.folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cluster.num_cluster=3"], "did you mean cluster.num_clusters?"),
        (["cluster.num_clusters=many"], "cluster.num_clusters"),
        (["cluster.num_clusters"], "section.key=value"),
        (["--task", "nowhere.csv"], "nowhere.csv"),
        (["--corpus", "somewhere"], "--task"),
        (["--preset", "best"], "recommended, faithful, demo"),
        (["--sedes", "3"], "--seeds"),
        (["--summary", "no/such/folder/s.json"], "no folder"),
        (["--tracking-uri", "nonsense:x"], "nonsense"),
        (["--num-workers", "2", "--gpus-per-worker", "8"], "needs 16 GPUs"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(command, tmp_path, arguments, says):
    status, said = command("run", *arguments)
    assert status == 2
    assert says in said
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir() if p.name != "store"] == []


def test_a_dry_run_says_what_would_be_built_and_builds_nothing(command, small_task, tmp_path):
    status, said = command("run", "--task", str(small_task), "--dry-run", *TINY)
    assert status == 0
    assert "ingest/task" in said and "miss" in said
    features = Config().teachers
    free = [spec.replace(":", "-") for spec in (*features.also, *features.judging)]
    known = ["ingest/task", *(f"teacher/{name}" for name in free)]
    assert all(name in said for name in known)
    nodes = graph(override(Config(), parse_overrides(TINY)), has_corpus=False)
    assert said.count("after ingest") == len(nodes) - len(known)
    assert not (tmp_path / "store").exists() and not (tmp_path / "mlflow.db").exists()


def test_what_listed_clips_rule_out_is_refused_before_one_is_read(command, small_task):
    asked = ("run", "--task", str(small_task), "--dry-run", "cluster.num_clusters=51")
    status, said = command(*asked)
    assert status == 2 and "cluster.num_clusters=51 is more than the 50 training clips" in said
    assert command(*asked, "ingest.segment_seconds=0.2")[0] == 0


def test_every_setting_can_be_listed_with_its_meaning_and_given_back(command):
    status, said = command("config", "--preset", "faithful")
    assert status == 0
    lines = said.splitlines()
    settings, meanings = zip(*(line.split("  # ", 1) for line in lines), strict=True)
    settings = [setting.rstrip() for setting in settings]
    assert "cluster.num_clusters=classes" in settings
    assert override(Config(), parse_overrides(settings)) == preset("faithful")
    assert all(meaning.strip() for meaning in meanings)


def test_a_setting_is_explained_with_its_range_and_default(command):
    status, said = command("config", "cluster.num_clusters", "cluster.num_clusters=7")
    assert status == 0
    assert said.splitlines() == [
        "cluster.num_clusters=7",
        '    k; "classes" is the number of target classes.',
        "    range    a whole number from 2 to 65536, or classes",
        "    default  16 (faithful: classes, demo: 32, large: 256)",
    ]
    status, said = command("config", "cluster.num_cluster")
    assert status == 2 and "did you mean cluster.num_clusters?" in said


def test_scripts_get_settings_as_json(command):
    status, said = command("config", "--json", "--preset", "demo")
    found = json.loads(said)
    assert status == 0
    assert {name: one["value"] for name, one in found.items()} == json.loads(
        json.dumps(flatten(preset("demo")))
    )
    assert found["rounds"]["range"] == "a whole number from 1 to 10"
    assert list(json.loads(command("config", "--json", "rounds")[1])) == ["rounds"]


def test_a_setting_given_twice_is_said_and_the_last_one_holds(command):
    status, said = command("config", "rounds=3", "rounds=2", "rounds")
    assert status == 0
    assert said.startswith("note: rounds is set twice; the last one holds: rounds=2\nrounds=2\n")


def test_the_command_alone_is_its_help(command):
    status, said = command()
    assert status == 0
    assert "Usage: unfused" in said and "error" not in said


@pytest.mark.parametrize(
    ("words", "found"),
    [("config cluster.num_c", "cluster.num_clusters"), ("run --preset fa", "faithful")],
)
def test_a_shell_completes_settings_and_presets(command, monkeypatch, words, found):
    monkeypatch.setenv("_UNFUSED_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"unfused {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    status, said = command()
    assert status == 0 and found in said.split()


def test_a_plan_as_json_is_alone_on_standard_output(command, small_task, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--task", str(small_task), "--dry-run", "--json", *TINY])
        raise SystemExit(0)
    out = capsys.readouterr()
    plan = json.loads(out.out)
    assert plan[0] == plan[0] | {"node": "ingest/task", "status": "miss"}
    assert "to build" in out.err and "clips      train" in out.err


def test_classes_with_fewer_clips_than_a_draw_asks_for_are_told(command, small_task):
    few = (*TINY, "finetune.labels_per_class=17")
    status, said = command("run", "--task", str(small_task), "--dry-run", *few)
    assert status == 0
    assert "labels     up to 17 of each class in a draw, all of those that have fewer" in said
    assert "training clips: high 16\n" in said


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_says_what_it_means_the_inherited_ones_too(name):
    config = preset(name)
    meanings = describe(config)
    assert list(meanings) == list(flatten(config))
    assert [setting for setting, meaning in meanings.items() if not meaning] == []
    assert meanings["distill.warmup_fraction"] == "Share of the steps spent warming up."


def test_the_version_is_said_and_nothing_else(command):
    assert command("--version") == (0, f"{__version__}\n")


def test_an_interruption_says_how_to_go_on(command, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("unfused.commands.run.run_pipeline", interrupted)
    status, said = command("run", "--seeds", "2")
    assert status == cli.INTERRUPTED == 130
    assert "unfused run --seeds 2" in said and "Traceback" not in said


def test_what_is_given_is_told_as_it_was_written(command, small_task):
    status, said = command("run", "--task", str(small_task), "--teacher", "periodicity:x")
    assert status == 2
    assert "--teacher periodicity:x: periodicity has no file; write --teacher periodicity." in said


def test_the_numbers_are_written_whole_and_before_anything_is_shown(command, monkeypatch, tmp_path):
    place = tmp_path / "s.json"

    def shown_to_nobody(request, keep):
        keep({"arms": {}})
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("unfused.commands.run.run_pipeline", shown_to_nobody)
    status, said = command("run", "--summary", str(place))
    assert status == 1 and json.loads(place.read_text()) == {"arms": {}} and not said


def test_numbers_that_cannot_be_written_leave_those_of_before(command, monkeypatch, tmp_path):
    place = tmp_path / "s.json"
    place.write_text("those of before")

    def full(*_):
        raise OSError(28, "No space left on device")

    def run(request, keep):
        monkeypatch.setattr("os.replace", full)
        keep({"arms": {}})
        return {"arms": {}}

    monkeypatch.setattr("unfused.commands.run.run_pipeline", run)
    status, said = command("run", "--summary", str(place), "--json")
    assert status == 1 and '"arms"' in said
    told = f"--summary {place} cannot be written (No space left on device)"
    assert told in said.replace("\n", "")
    assert place.read_text() == "those of before" and [*tmp_path.iterdir()] == [place]


def test_a_full_disk_is_named_and_nothing_is_promised(command, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device", "/disk/said.csv")

    monkeypatch.setattr("unfused.commands.inspect.inspect", fails)
    status, said = command("inspect", "clips")
    assert status == 1 and "goes on" not in said
    assert "Cannot use /disk/said.csv: no space left; free some space there." in said


@pytest.mark.parametrize(("words", "status"), [(["config"], 0), (["run", "--task", "/no"], 2)])
def test_a_standard_error_that_is_full_changes_no_status(words, status, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "unfused", *words],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=full,
        )  # fmt: skip
    assert done.returncode == status
