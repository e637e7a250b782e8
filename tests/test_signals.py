"""Whoever asks a program to end is heard, and not kept waiting who asks twice."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys, time
for number in (signal.SIGHUP, signal.SIGINT):
    if number.name in sys.argv:
        signal.signal(number, signal.SIG_IGN)
from unfused import signals
signals.listen()
if "replaced" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: None)
    signals.listen_again()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("asked", flush=True)
    if "busy" in sys.argv:
        time.sleep(60)
"""


def _heed() -> None:
    """Who is started in the background is handed on that some are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _started(*words: str) -> subprocess.Popen:
    one = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_heed,
    )
    assert one.stdout is not None and one.stdout.readline() == "ready\n"
    return one


@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whoever_asks_is_answered_alike(asking):
    one = _started()
    one.send_signal(asking)
    assert one.communicate(timeout=30)[0] == "asked\n" and one.returncode == 0


@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_time_it_ends_at_once(asking):
    one = _started("busy")
    one.send_signal(signal.SIGTERM)
    assert one.stdout is not None and one.stdout.readline() == "asked\n"
    one.send_signal(asking)
    assert one.wait(timeout=30) == 128 + asking


def test_who_is_started_in_the_background_listens_again_after_a_library_has_answered_too():
    one = _started("SIGINT", "replaced")
    one.send_signal(signal.SIGTERM)
    assert one.communicate(timeout=30)[0] == "asked\n" and one.returncode == 0


def test_what_is_ignored_stays_so():
    one = _started("SIGHUP")
    one.send_signal(signal.SIGHUP)
    one.send_signal(signal.SIGTERM)
    assert one.communicate(timeout=30)[0] == "asked\n" and one.returncode == 0
