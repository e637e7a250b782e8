"""A run goes on whatever its listeners do."""

from __future__ import annotations

from unfused.events import Event, Note, Progress, Stream


def test_a_subscriber_that_fails_never_stops_the_run(caplog):
    stream, seen = Stream(), []

    def broken(event: Event) -> None:
        raise RuntimeError("display is gone")

    stream.subscribe(broken)
    stream.subscribe(seen.append)
    stream.emit(Note("one"))
    stream.emit(Note("two"))
    assert [event.text for event in seen] == ["one", "two"]
    assert caplog.text.count("broken failed on Note: display is gone") == 1


def test_what_a_person_was_told_is_not_said_again():
    seen: list = []
    stream = Stream([seen.append])
    notes = [Note("one"), Note("one"), Note("one", "embed"), Note("one", level="warning")]
    for event in (*notes, *notes, Progress("n", 1, 2), Progress("n", 1, 2)):
        stream.emit(event)
    assert seen == [*notes[1:], Progress("n", 1, 2), Progress("n", 1, 2)]


def test_what_a_setting_leads_to_is_said_once_wherever_it_is_seen():
    heard: list[Event] = []
    stream = Stream([heard.append])
    few = [Note("few points", f"cluster/{i}", "warning", "cluster.num_clusters") for i in "ab"]
    bad = [Note("a clip is bad", f"embed/{i}", "warning") for i in "ab"]
    for note in (*few, *bad):
        stream.emit(note)
    assert heard == [few[0], *bad]
