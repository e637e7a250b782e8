"""`unfused serve`: a model behind HTTP, for programs of any language.

The rule of this file: nothing that is sent is kept, and nothing that is sent can ask for more
memory or time than the limits allow.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from rich.markup import escape

from unfused import __version__, cores, display
from unfused.audio.decode import BadClip
from unfused.config import ConfigError
from unfused.inference import Model, Prediction, Segment, TimelineConfig
from unfused.store import Folder

TOO_LARGE, UNREADABLE = 413, 422
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


@dataclass(frozen=True)
class Limits:
    """Of one request."""

    mib: float = 64.0
    seconds: float = 600.0

    @property
    def num_bytes(self) -> int:
        return int(self.mib * 2**20)


def application(model: Model, limits: Limits) -> FastAPI:
    """The server of a model."""
    app = FastAPI(title=model.facts.name, version=__version__)

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
        data = await _body(request, limits)
        return _told(await run_in_threadpool(_answered, model.predict, data))

    @app.post("/timeline", openapi_extra=BODY)
    async def timeline(
        request: Request,
        window: float | None = None,
        overlap: float = 0.5,
        threshold: float = 0.5,
        min_seconds: float = 0.0,
    ) -> list[dict[str, Any]]:
        """The segments of a recording that have a label."""
        data = await _body(request, limits)
        config = _answered(TimelineConfig, window, overlap, threshold, min_seconds)
        found = await run_in_threadpool(_answered, model.timeline, data, None, config)
        return [_told(one) for one in found]

    return app


async def _body(request: Request, limits: Limits) -> bytes:
    """What was sent, as far as it is no more than the limit."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limits.num_bytes:
            raise HTTPException(
                TOO_LARGE, f"The recording has more than {limits.mib:g} MiB; send a shorter one."
            )
    return bytes(data)


def _answered(function: Any, *arguments: Any) -> Any:
    """What a function returns, or its complaint as an answer."""
    try:
        return function(*arguments)
    except (BadClip, ConfigError) as wrong:
        raise HTTPException(UNREADABLE, str(wrong)) from None


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
        model = Model(folder, max_seconds=limits.seconds)
        shown = f"http://{host}:{listener.getsockname()[1]}/"
        console = display.make_console()
        console.print(f"{escape(model.facts.name)} at {shown}", highlight=False)
        console.print(f"  curl --data-binary @clip.wav {shown}predict", highlight=False)
        server = uvicorn.Server(uvicorn.Config(application(model, limits), log_level="warning"))
        server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"Cannot listen at {host}:{port} ({error}); give another --port, or --port 0 for any."
        ) from None
    return listener
