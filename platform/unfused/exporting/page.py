"""One HTML file that labels recordings in a browser, by an exported ONNX file.

The rule of this file: the page is whole; it asks no server for anything, and sends nothing.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from unfused.audio.channels import ALIKE, CANCELLED, SILENT
from unfused.config import Channel
from unfused.exporting.webruntime import runtime

TEMPLATE = Path(__file__).with_suffix(".html")


def page(
    model: Path,
    title: str,
    about: str,
    classes: Sequence[str],
    sample_rate: int,
    window: int,
    hop: int,
    channel: Channel = "mean",
) -> str:
    """The page.

    Args:
        model: an ONNX file as `exporting.write` makes it.
        title: of the page.
        about: a sentence below it.
        classes: in the order of the file's probabilities.
        sample_rate: Hz that the file takes.
        window: samples of a window of a timeline.
        hop: samples from one to the next.
        channel: what is taken of several channels.
    """
    facts = {
        "classes": list(classes),
        "sample_rate": sample_rate,
        "window": window,
        "hop": hop,
        "channel": channel,
        "silent": SILENT,
        "cancelled": CANCELLED,
        "alike": ALIKE,
    }
    found = runtime()
    return _filled(
        TEMPLATE.read_text(),
        {
            "TITLE": html.escape(title),
            "ABOUT": html.escape(about),
            # In a script "</" ends it, and "<!--" may have it never end.
            "FACTS": json.dumps(facts).replace("<", "\\u003c"),
            "RUNTIME": _packed(found.code),
            "WASM": _packed(found.wasm),
            "MODEL": _packed(model.read_bytes()),
        },
    )


def _filled(template: str, values: Mapping[str, str]) -> str:
    # At once: a class may be called like a place of the template.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda place: values[place[1]], template)


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()
