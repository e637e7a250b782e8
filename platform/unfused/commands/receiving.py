"""What a server takes from whoever asks: how much, for how long, of how many at a time.

The rule of this file: whatever is sent, and however slowly, what is held of it has a bound, and the
answer is one sentence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h11
from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

from unfused.inference.hearing import SAMPLES_A_SECOND, SERVED_SECONDS

HELD_AT_ONCE = 8
"""So many recordings of the largest size may be held."""
WRAPPED = ("multipart/form-data", "application/json")
"""Types of what is no file of audio, but has one in it."""
RETRY = {"Retry-After": "1"}


@dataclass(frozen=True)
class Limits:
    """Of one request, and of all at a time.

    Attributes:
        mib: of a recording that is sent.
        seconds: of its sound.
        patience: seconds that a request may take to arrive.
        requests: that have arrived and are not answered yet.
    """

    mib: float = 64.0
    seconds: float = SERVED_SECONDS
    patience: float = 60.0
    requests: int = 64

    @property
    def num_bytes(self) -> int:
        return int(self.mib * 2**20)

    @property
    def num_samples(self) -> float:
        return self.seconds * SAMPLES_A_SECOND


class Room:
    """How much is held of all requests; used in one thread, that of the event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._bytes = self._requests = 0

    @contextmanager
    def recording(self) -> Iterator[bytearray]:
        """A place for what is sent, which ends with the request."""
        data = bytearray()
        try:
            yield data
        finally:
            self._bytes -= len(data)

    def put(self, data: bytearray, part: bytes) -> HTTPException | None:
        """Add what has arrived; the refusal, 413, or 503 where others have all the room."""
        if len(data) + len(part) > self.limits.num_bytes:
            return self.too_large()
        if self._bytes + len(part) > HELD_AT_ONCE * self.limits.num_bytes:
            return HTTPException(503, "Too much is being sent at once; send it again later.", RETRY)
        self._bytes += len(part)
        data += part
        return None

    def too_large(self) -> HTTPException:
        mib = self.limits.mib
        return HTTPException(413, f"The recording has more than {mib:g} MiB; send a shorter one.")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Held by a request that waits for its answer.

        Raises:
            HTTPException: 503, where too many do.
        """
        if self._requests >= self.limits.requests:
            most = self.limits.requests
            raise HTTPException(503, f"{most} recordings wait already; send it again later.", RETRY)
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1


async def receive(request: Request, room: Room, data: bytearray) -> None:
    """Put what is sent into `data`.

    What is refused is read all the same, and dropped: who is still sending would not hear why.

    Raises:
        HTTPException: 400, 408, 411, 413, 415 or 503, with one sentence.
    """
    limits, num_bytes = room.limits, 0
    refusal = _refused_by_headers(request.headers, room)
    if refusal and request.headers.get("expect"):
        raise refusal
    try:
        async with asyncio.timeout(limits.patience):
            async for part in request.stream():
                refusal = refusal or room.put(data, part)
                num_bytes += len(part)
                if num_bytes > HELD_AT_ONCE * limits.num_bytes:
                    break
    except TimeoutError:
        refusal = refusal or HTTPException(
            408, f"The recording did not arrive in {limits.patience:g} s; send a shorter one."
        )
    except ClientDisconnect:
        refusal = HTTPException(400, "The recording did not arrive whole; send it again.")
    if refusal:
        raise refusal


def _refused_by_headers(headers: Headers, room: Room) -> HTTPException | None:
    """Why what comes cannot be taken, if that is known before."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in WRAPPED:
        return HTTPException(
            415, f"The body is {kind}; send the file itself (curl --data-binary @clip.wav)."
        )
    length = headers.get("content-length")
    if length is None and "transfer-encoding" not in headers:
        return HTTPException(411, "Nothing was sent, or no Content-Length; send a file of audio.")
    if length is not None and int(length) > HELD_AT_ONCE * room.limits.num_bytes:
        raise room.too_large()
    return room.too_large() if length and int(length) > room.limits.num_bytes else None


class Patient(H11Protocol):
    """HTTP on one connection, which ends where nobody asks or reads for too long.

    uvicorn itself waits for ever for the headers of a request, and for who does not read.
    """

    patience = Limits.patience

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since: float | None = self.loop.time()
        self._was_stuck = False
        self._next_look = self.loop.call_later(self.patience, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        """End the connection where its last answer, or its beginning, is too long ago."""
        stuck = self.flow.write_paused
        idle = self.cycle is None or self.cycle.response_complete
        since = self.loop.time() - self._idle_since
        if (stuck and self._was_stuck) or (idle and since >= self.patience):
            self.transport.abort()
            return
        self._was_stuck = stuck
        rest = self.patience - since if idle else self.patience
        self._next_look = self.loop.call_later(rest, self._look)

    def send_400_response(self, msg: str) -> None:
        """Say in JSON, like all else, that what was sent is no HTTP."""
        told = json.dumps({"detail": "What was sent is no HTTP; send a file of audio."}).encode()
        kind = [("content-type", "application/json"), ("connection", "close")]
        answer: list[Any] = [
            h11.Response(status_code=400, headers=kind, reason=b"Bad Request"),
            h11.Data(data=told),
            h11.EndOfMessage(),
        ]
        for event in answer:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
