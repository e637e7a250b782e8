"""`unfused sync`: tell MLflow what runs could not.

The rule of this file: it ends with 0 once nothing is left that can be told.
"""

from __future__ import annotations

import time

from unfused import display, terminal, tracking
from unfused.commands import places

WAIT_SECONDS = 10.0
"""For an MLflow that is away."""


class NotSent(RuntimeError):
    """What is left stays where it is; the message says why."""


def sync(location: str, tracking_uri: str | None) -> None:
    """Tell MLflow what the runs of a store have left untold, and print a line for each.

    Args:
        location: of the store.
        tracking_uri: of the MLflow that is told; by default what each run was meant for.

    Raises:
        TrackingError: the URI is none.
        NotSent: MLflow is away.
    """
    console = display.make_console()
    store, sent = places.there(location).root, list[tracking.Sent]()
    if tracking_uri and not tracking.is_server(tracking_uri):
        tracking.initialise(tracking_uri)
    patience = tracking.Patience(WAIT_SECONDS)

    def told(one: tracking.Sent) -> None:
        sent.append(one)
        console.print(_line(one), markup=False, highlight=False, soft_wrap=True)

    try:
        with terminal.busy(console, "telling MLflow"):
            tracking.replay(store, patience, lambda meant: _place(tracking_uri or meant), told)
    except tracking.GivenUp as error:
        raise NotSent(
            f"MLflow does not take it now ({error}); what is left stays in {store.uri}."
        ) from None
    if stay := sum(one.stays for one in sent):
        raise NotSent(f"{stay} of {len(sent)} runs could not be sent and stay in {store.uri}.")
    if not sent:
        none = f"Nothing waits to be sent to MLflow in {store.uri}."
        console.print(none, markup=False, highlight=False, soft_wrap=True)


def _place(uri: str) -> str:
    """Where runs are recorded, if it answers."""
    try:
        return tracking.initialise(uri)
    except tracking.TrackingError as error:
        if tracking.is_server(uri):
            raise tracking.GivenUp(str(error).rstrip(".")) from None
        raise


def _line(one: tracking.Sent) -> str:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at))
    how = "kept" if one.stays else "sent" if one.ended else "closed"
    why = f": {one.trouble}" if one.trouble else "" if one.ended else " (the run had died)"
    return f"{how:9}  {one.name}, of {began}{why}"
