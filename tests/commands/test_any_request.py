"""Whatever is asked for, a dry run answers: a plan, or one sentence; and nothing is written.

`make test` tries some hundreds; UNFUSED_TEST_REQUESTS=2000, as in `make test-long`, tries so many.
"""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drawn_requests import GARBAGE, beyond, holders, names, requests
from unfused import cli
from unfused.config import Config, ConfigError, override
from unfused.store import canonical_json

TRIED = int(os.environ.get("UNFUSED_TEST_REQUESTS", "300"))
FEW = ("cluster.num_clusters=8",)
"""No more than there are clips."""
SLOWEST = 30.0
"""Seconds that an answer may take on a machine that does other things as well."""


def below(folder: Path) -> list[tuple[str, int, float]]:
    """Every file and folder with its size and time."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return sorted((str(path), one.st_size, one.st_mtime) for path, one in found)


@pytest.fixture(scope="module")
def ask(small_task, tmp_path_factory):
    """Ask for a dry run in an empty folder, at an empty home: the status, and what was wrong."""
    root = tmp_path_factory.mktemp("nothing")
    folders = {name: root / name for name in ("cwd", "HOME")}
    for folder in folders.values():
        folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folders["cwd"])
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.setenv("HOME", str(folders["HOME"]))
        # Typer makes its parser anew for every call, which takes longer than the answer.
        patch.setattr(cli, "app", typer.main.get_command(cli.app))
        before = below(root), below(small_task)

        def asked(*arguments: str) -> tuple[int, str]:
            out, error, began = io.StringIO(), io.StringIO(), time.monotonic()
            with (
                redirect_stdout(out),
                redirect_stderr(error),
                pytest.raises(SystemExit) as stop,
            ):
                cli.main(["run", "--dry-run", *arguments])
            assert time.monotonic() - began < SLOWEST
            assert (below(root), below(small_task)) == before
            return stop.value.code or 0, error.getvalue()

        yield asked


def hold(status: int, said: str) -> int:
    """A plan, or one sentence; which of them."""
    assert status in (0, 2), said
    lines = [line for line in said.splitlines() if not line.startswith("note: ")]
    if status == 0:
        assert not lines
        return status
    assert len(lines) == 1, said
    assert lines[0].startswith("error: ") and lines[0].endswith((".", "?")), said
    assert "Traceback" not in said and "pydantic" not in said
    return status


def try_all(drawn: st.SearchStrategy, ask: Callable[[Any], tuple[int, str]], number: int) -> None:
    """Ask for so many requests, the same every time; many are planned and many refused."""
    ended: Counter[int] = Counter()

    @settings(
        max_examples=number, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(drawn)
    def hold_one(asked_for: Any) -> None:
        ended[hold(*ask(asked_for))] += 1

    hold_one()
    print(f"{ended[0]} planned and {ended[2]} refused of {ended.total()}")
    assert min(ended[0], ended[2]) > number / 10


def test_any_pair_of_settings_is_planned_or_refused_in_a_sentence(ask, small_task):
    words = ("--task", str(small_task), "--", *FEW)
    try_all(requests(), lambda asked_for: ask(*words, *asked_for), TRIED)


OPTIONS = (
    "--task", "--corpus", "--teacher", "--store", "--tracking-uri", "--experiment", "--preset",
    "--seeds", "--num-workers", "--jobs", "--gpus-per-worker", "--summary", "--path-column",
    "--label-column", "--audio-root",
)  # fmt: skip
PLACES = (
    ".", "/", "~", "~nobody-here/x", "/etc/passwd", "/etc/passwd/x", "/nonexistent/x", "x" * 5000,
    "foo://bar", "http://", "http://:5000", "https:///x", "http://[::1", "mock://x", "s3://",
    "file://", "sqlite:///", "sqlite://", "sqlite:///:memory:", "models:/", "run:", "onnx:", "hf:",
    "statistics:x", ":", "://",
)  # fmt: skip


def test_any_pair_of_options_is_planned_or_refused_in_a_sentence(ask, small_task):
    pair = st.tuples(st.sampled_from(OPTIONS), st.sampled_from(GARBAGE + PLACES))
    words = ("--task", str(small_task), *FEW)

    def asked(pairs: list[tuple[str, str]]) -> tuple[int, str]:
        return ask(*words, *(f"{option}={value}" for option, value in pairs))

    try_all(st.lists(pair, min_size=1, max_size=2), asked, TRIED // 4)


def test_the_demo_is_planned_without_its_recordings_being_made(ask):
    assert ask("--preset", "demo") == (0, "")


def test_more_seeds_than_anybody_has_time_for_are_refused_in_seconds(ask, small_task):
    status, said = ask("--task", str(small_task), "--seeds", "100000")
    assert status == 2 and "--seeds 100000 is not from 1 to 1000" in said


@pytest.mark.parametrize("name", names())
def test_a_setting_takes_what_can_be_hashed_or_says_its_name(name):
    kinds = dict(holders()[name][:1])
    for value in ("nan", "inf", "1e999", "-1", "", "[nan,1]", *beyond(name)):
        try:
            made = override(Config(), kinds | {name: value})
        except ConfigError as refused:
            assert name.rpartition(".")[2] in str(refused) and "\n" not in str(refused)
        else:
            canonical_json(made.identity())
