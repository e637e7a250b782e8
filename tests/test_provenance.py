"""What is recorded of a command is fit to be shown to everybody."""

from __future__ import annotations

import sys

import pytest

from unfused import provenance


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("postgresql://me:s3cret@host:5432/optuna", "postgresql://me:***@host:5432/optuna"),
        ("--study-storage=mysql://me:a/b:c@host/x", "--study-storage=mysql://me:***@host/x"),
        ("http://:token@host", "http://:***@host"),
        ("postgresql://host/db?user=me&password=a&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("s3://bucket/path", "s3://bucket/path"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("distill.temperature=3", "distill.temperature=3"),
    ],
)
def test_a_password_on_the_command_line_is_not_kept(word, kept, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["unfused", word])
    assert provenance.collect()["argv"] == ["unfused", kept]
