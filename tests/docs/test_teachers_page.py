"""docs/teachers.md: its example runs, and its tables have every key and SPEC."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from conftest import ROOT
from unfused.teachers import WRITTEN
from unfused.teachers.description import KEYS

PAGE = (ROOT / "docs" / "teachers.md").read_text()


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for number, code in enumerate(blocks):
        (tmp_path / f"{number}.py").write_text(code)
        command = [sys.executable, f"{number}.py"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr


def test_every_key_of_the_json_and_every_spec_has_a_row():
    rows = {
        name for row in re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE) for name in row.split("`")
    }
    assert set(KEYS) <= rows
    assert set(WRITTEN.values()) - {"hf:NAME or hf:FOLDER"} <= rows
    assert {"hf:NAME", "hf:FOLDER"} <= rows
