"""`unfused serve`: a model behind HTTP, for programs of any language.

The rule of this file: nothing that is sent is kept, and nothing that is sent can ask for more
memory or time than the limits allow.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from unfused import __version__, cores, display
from unfused.audio.decode import BadClip
from unfused.commands.places import check_named
from unfused.commands.receiving import Limits, Patient, Room, receive
from unfused.config import ConfigError
from unfused.inference import Model, Prediction, Segment, TimelineConfig
from unfused.store import Folder

UNREADABLE = 422
SENT = {"audio/*": {}, "application/octet-stream": {}}
BODY = {"requestBody": {"required": True, "content": SENT}}
PAGE = """<!doctype html><meta charset="utf-8"><title>{name}</title>
<style>body{{font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em}}</style>
<h1>{name}</h1><p>{count} classes. Choose a recording, or send one:</p>
<pre>curl --data-binary @clip.wav {url}predict</pre>
<input type="file" accept="audio/*"><pre id="said"></pre>
<p><a href="openapi.json">openapi.json</a></p>
<script>document.querySelector("input").onchange=async e=>{{
const a=await fetch("predict",{{method:"POST",body:e.target.files[0]}});
said.textContent=JSON.stringify(await a.json(),null,2)}}</script>"""


MOST_WINDOWS = 50_000
"""That a timeline may ask for."""
AT_A_TIME = 2
"""Recordings that are decoded and scored side by side; the model has all cores for each."""
CLOSE_SECONDS = 10
"""That what is at hand may take when the server is ended."""


def application(model: Model, limits: Limits) -> FastAPI:
    """The server of a model."""
    app = FastAPI(title=model.facts.name, version=__version__)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(Exception, _unforeseen)
    room, seats = Room(limits), anyio.CapacityLimiter(AT_A_TIME)

    async def answer(request: Request, asked: Callable[[bytes], Any]) -> Any:
        """What is said of the recording that is sent."""
        with room.recording() as data:
            await receive(request, room, data)
            with room.turn():
                return await to_thread.run_sync(_answered, asked, bytes(data), limiter=seats)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> str:
        from html import escape as quoted

        named = quoted(model.facts.name), len(model.classes), quoted(str(request.base_url))
        return PAGE.format(name=named[0], count=named[1], url=named[2])

    @app.get("/health")
    def health() -> dict[str, Any]:
        """What the model is, and what may be sent."""
        facts = model.facts
        return {
            "model": facts.name,
            "arm": facts.arm,
            "classes": facts.classes,
            "sample_rate": facts.sample_rate,
            "max_mib": limits.mib,
            "max_seconds": limits.seconds,
        }

    @app.post("/predict", openapi_extra=BODY)
    async def predict(request: Request) -> dict[str, Any]:
        """The label of a recording: the body is a file of audio, of any format that `run` reads."""
        _check_names(request, ())
        return _told(await answer(request, model.predict))

    @app.post("/timeline", openapi_extra=BODY)
    async def timeline(
        request: Request,
        window: float | None = None,
        overlap: float = 0.5,
        threshold: float = 0.5,
        min_seconds: float = 0.0,
    ) -> list[dict[str, Any]]:
        """The segments of a recording that have a label."""
        _check_names(request, ("window", "overlap", "threshold", "min_seconds"))
        config = _answered(TimelineConfig, window, overlap, threshold, min_seconds)
        _check_windows(model, limits, config)
        found = await answer(request, lambda data: model.timeline(data, None, config))
        return [_told(one) for one in found]

    return app


def _check_names(request: Request, known: Sequence[str]) -> None:
    """Refuse a parameter that means nothing, as one that is misspelt does."""
    if odd := next((name for name in request.query_params if name not in known), ""):
        there = f"there are {', '.join(known)}" if known else "this address takes none"
        raise HTTPException(UNREADABLE, f"There is no parameter {odd!r}; {there}.")


def _check_windows(model: Model, limits: Limits, config: TimelineConfig) -> None:
    """Refuse what would take hours on the longest recording that may be sent."""
    hop = (config.window or model.facts.durations[2]) * (1 - config.overlap)
    if hop * MOST_WINDOWS < limits.seconds:
        least = limits.seconds / MOST_WINDOWS
        raise HTTPException(
            UNREADABLE, f"Windows begin every {hop:g} s; let it be {least:g} s or more."
        )


async def _wrong_query(request: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request's parameters, in one sentence."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}."}, UNREADABLE)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "The server failed on that; its log says why."}, 500)


def _answered(function: Any, *arguments: Any) -> Any:
    """What a function returns, or its complaint as an answer."""
    try:
        return function(*arguments)
    except (BadClip, ConfigError) as wrong:
        long = isinstance(wrong, BadClip) and wrong.reason.startswith("longer than")
        more = "; `unfused serve --max-seconds` takes longer ones" if long else ""
        raise HTTPException(UNREADABLE, f"{wrong}{more}") from None


def _told(segment: Segment) -> dict[str, Any]:
    found = {
        "start": segment.start,
        "end": segment.end,
        "label": segment.label,
        "probability": segment.probability,
        "entropy": segment.entropy,
        "probabilities": dict(segment.probabilities),
    }
    return found | ({"digest": segment.digest} if isinstance(segment, Prediction) else {})


def serve(folder: Folder, host: str, port: int, limits: Limits) -> None:
    """Serve until somebody ends it.

    Raises:
        ConfigError: the address is taken or is none of this machine.
    """
    import uvicorn

    with _listening(host, port) as listener:
        cores.prepare_process(cores.available_cpus())
        model = Model(folder, max_seconds=limits.seconds, max_samples=limits.num_samples)
        shown = f"http://{host}:{listener.getsockname()[1]}/"
        console = display.make_console()
        console.print(f"{model.facts.name} at {shown}", markup=False, highlight=False)
        curl = f"  curl --data-binary @clip.wav {shown}predict"
        console.print(curl, markup=False, highlight=False)
        config = uvicorn.Config(
            application(model, limits),
            http=type("_Patient", (Patient,), {"patience": limits.patience}),
            timeout_graceful_shutdown=CLOSE_SECONDS,
            log_level="warning",
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    check_named({"--host": host})
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"Cannot listen at {host}:{port} ({error}); give another --host or --port, or --port 0"
            " for any."
        ) from None
    return listener
