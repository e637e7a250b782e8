"""A run goes on whatever its listeners do."""

from __future__ import annotations

from unfused.events import Event, Note, Stream


def test_a_subscriber_that_fails_never_stops_the_run(caplog):
    stream, seen = Stream(), []

    def broken(event: Event) -> None:
        raise RuntimeError("display is gone")

    stream.subscribe(broken)
    stream.subscribe(seen.append)
    stream.emit(Note("one"))
    stream.emit(Note("two"))
    assert [event.text for event in seen] == ["one", "two"]
    assert caplog.text.count("display is gone") == 1
