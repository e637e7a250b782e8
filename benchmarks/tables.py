"""Tables of Markdown, written between markers so that nothing in a document is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace(document: Path, name: str, text: str) -> None:
    """Put `text` between the markers `name: begin` and `name: end` of a document.

    Raises:
        ValueError: the document has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before = document.read_text()
    head, found, rest = before.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{document} has no markers for {name!r}; add {begin.strip()} and {end}.")
    document.write_text(f"{head}{begin}{text}\n{end}{tail}")
