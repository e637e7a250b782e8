"""The line that a search prints is a command that gives its best trial again."""

from __future__ import annotations

import shlex

import pytest

from small_searches import BLIND, TEMPERATURE, search_of
from unfused.commands.run import clip_notes
from unfused.commands.search import best_command, show_search
from unfused.config import Config, parse_overrides
from unfused.pipeline import Plan
from unfused.tuning import outcome


@pytest.mark.parametrize("labelled", [True, False])
def test_the_line_that_reproduces_the_best_trial_is_a_command_of_any_shell(
    labelled, small_task, tmp_path
):
    changes = {"evaluate.split": "valid", "arms": ["scratch", "unfused"]}
    space = TEMPERATURE if labelled else BLIND
    asked = search_of(small_task, space, tmp_path, **changes)
    line = outcome.line({"distill.temperature": 2.5, "distill.augment.time_scale": "[0.5,1.5]"})
    command = best_command(asked, line, Config())
    words = shlex.split(command)
    assert shlex.join(words) == command and "'arms=[unfused]'" in command
    pairs = [word for word in words[2:] if "=" in word]
    settings = parse_overrides(pairs)
    assert settings.get("evaluate.split") == ("valid" if labelled else None)
    assert settings["distill.temperature"] == "2.5"
    assert settings["cluster.num_clusters"] == "6"


def test_a_search_begins_with_the_clips_and_warnings_of_a_run(small_task, tmp_path, capsys):
    asked = search_of(small_task, TEMPERATURE, tmp_path, **{"finetune.labels_per_class": 17})
    told = clip_notes(asked.request, Plan(asked.request).inputs)
    assert [note.level for note in told] == ["info", "info", "info", "warning"]
    show_search(asked, concurrency=1)
    shown = capsys.readouterr().out
    assert all(note.text in shown for note in told)
    assert shown.count("clips      train") == 1 and "18 test clips" in shown
