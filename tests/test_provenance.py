"""What is recorded of a command is fit to be shown to everybody."""

from __future__ import annotations

import sys

from unfused import provenance


def test_a_password_on_the_command_line_is_not_kept(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["unfused", "--study-storage", "mysql://me:s3cret@host/x"])
    assert provenance.collect()["argv"] == ["unfused", "--study-storage", "mysql://me:***@host/x"]
