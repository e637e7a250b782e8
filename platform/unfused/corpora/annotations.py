"""Stretches of recordings with labels, as annotation programs write them.

    Raven           selection tables, tab-separated, "Begin Time (s)"
    Audacity        label tracks: begin, end, label
    Label Studio    its JSON export, of regions in audio (`label_studio`)

The rule of this file: a table says which recording it is of, or has its name; what cannot be found
is told, what may be of several is refused, and a recording that nothing is said of has no label.
"""

from __future__ import annotations

import csv
import io
import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

from unfused.corpora import label_studio, location
from unfused.corpora.clip import Clip, ManifestError, Stretch
from unfused.corpora.columns import LABELS, PATHS, chosen_column, plain_name
from unfused.corpora.folders import AUDIO_EXTENSIONS, Found, by_name, look
from unfused.corpora.listing import Columns, Listing
from unfused.corpora.recording import recording_of
from unfused.corpora.tables import text_of

ENDINGS = (".txt", ".tsv", ".csv", ".json")
BEGIN, END, OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
FILES = ("Begin Path", "Begin File")
RAVENS_OWN = re.compile(
    r"(selection|view|channel|(begin|end|peak|center|delta|low|high|dur|freq|time|bw|max|min|avg|"
    r"agg|entropy|energy|inband|snr|file offset|begin file|begin path|end file|score|confidence|"
    r"occupancy|rms|length|sample|q1|q3|iqr|leq|notes?)\b.*)",
    re.IGNORECASE,
)
"""Columns of measurements, which no person has made."""


def is_annotation(place: str, data: bytes) -> bool:
    """Whether a file holds annotations in one of the forms."""
    if place.endswith(".json"):
        return label_studio.is_export(data)
    head = data[:4096]
    return BEGIN.encode() in head or BEGIN.encode("utf-16-le") in head or _is_audacity(data)


def among(place: str, found: Found) -> tuple[dict[str, bytes], Found]:
    """The tables of annotations among a folder's files, and the folder with what is to be said of
    those that only look like tables."""
    tables: dict[str, bytes] = {}
    left_out: dict[str, list[str]] = {}
    has_classes = len({posixpath.dirname(name) for name, _ in found.audio}) > 1
    for name in found.others:
        if name.lower().endswith(ENDINGS):
            data = _content(location.join(place, name))
            if not is_annotation(name, data):
                continue
            if doubt := _doubt(name, data, has_classes):
                left_out.setdefault(doubt, []).append(name)
            else:
                tables[name] = data
    notes = [
        f"{'1 file has' if len(names) == 1 else f'{len(names)} files have'} {doubt} (the first is"
        f" {names[0]!r})."
        for doubt, names in left_out.items()
    ]
    return tables, replace(found, notes=[*found.notes, *notes])


def _doubt(table: str, data: bytes, has_classes: bool) -> str:
    """Why what looks like a table of annotations is not taken for one; "" if it is."""
    if table.endswith(".json"):
        told = "tasks without regions or choices of Label Studio, left out"
        return "" if label_studio.has_answers(data) else told
    text = text_of(data, [])
    if not has_classes or BEGIN in text or any(map(_has_words, _of_audacity(text))):
        return ""
    return "numbers where a label track has labels, left out; name such labels in a manifest"


def _content(place: str) -> bytes:
    """A file's bytes; none of a link that leads nowhere."""
    try:
        return location.read_bytes(place)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ManifestError(
            f"Cannot read {place!r} ({error.strerror or error}); check its permissions."
        ) from None


def in_file(place: str, data: bytes, chosen: Columns) -> Listing:
    """The stretches of one table, of recordings in its folder or below `chosen.root`."""
    root = location.absolute(chosen.root) if chosen.root else location.parent(place)
    return in_folder(root, look(root), {posixpath.basename(place): data}, chosen, alone=True)


def in_folder(
    root: str,
    found: Found,
    tables: Mapping[str, bytes],
    chosen: Columns,
    *,
    alone: bool = False,
) -> Listing:
    """The stretches of a folder's recordings.

    Args:
        root: the folder, absolute.
        found: what is in it.
        tables: of annotations, by name.
        chosen: what their columns are called.
        alone: whether recordings without annotations are left out.

    Raises:
        ManifestError: no annotation can be used, or it may be of several recordings.
    """
    status = dict(found.audio)
    names = by_name([name for name, _ in found.audio])
    notes, lost, odd = list(found.notes), [], 0
    clips: list[Clip] = []
    for table, data in tables.items():
        recording = cache(partial(recording_of, table=table, names=names))
        for one in _stretches(table, data, chosen, notes):
            name = recording(one.file)
            if name is None:
                lost.append(one.file or table)
            elif not one.label or not (0 <= one.start < one.end):
                odd += 1
            else:
                clips.append(_clip(root, name, status[name], one))
    clips = list({(c.path, c.start, c.end, c.label): c for c in clips}.values())
    if lost:
        notes.append(
            f"{len(lost)} annotated stretches are of recordings that are not there, the first of"
            f" {lost[0]!r}; --audio-root says where they are."
        )
    if odd:
        notes.append(f"{odd} annotations have no label or no length, and are left out.")
    if not clips and lost:
        raise ManifestError(
            f"No annotation in {root!r} has a label and a recording (the first is of {lost[0]!r});"
            " put the tables beside the recordings, or say with --audio-root where these are."
        )
    if not clips:
        raise ManifestError(
            f"No annotation in {root!r} has a label and a length (those of {next(iter(tables))!r},"
            " for one); label stretches or recordings there, or give a .csv."
        )
    annotated = {clip.path for clip in clips}
    notes.append(
        f"{len(clips)} annotated stretches of {len(annotated)} recordings; all of a recording stay"
        " in one split."
    )
    if not alone:
        bare = [
            Clip(location.join(root, name), size=size, modified=modified, name=name)
            for name, (size, modified) in found.audio
            if location.join(root, name) not in annotated
        ]
        if bare:
            are = "1 recording has" if len(bare) == 1 else f"{len(bare)} recordings have"
            notes.append(f"{are} no annotation, and no label.")
        clips += bare
    return Listing(clips, tuple(notes))


def _clip(root: str, name: str, status: location.Listed, one: Stretch) -> Clip:
    place, (size, modified) = location.join(root, name), status
    if math.isinf(one.end):
        return Clip(place, one.label, size=size, modified=modified, name=name)
    known = {"group": name, "size": size, "modified": modified, "start": one.start, "end": one.end}
    return Clip(place, one.label, name=f"{name}#{one.start:g}-{one.end:g}", **known)


def _stretches(
    table: str, data: bytes, chosen: Columns, notes: list[str]
) -> Iterator[Stretch]:
    if table.endswith(".json"):
        yield from label_studio.stretches(table, data, notes)
        return
    text = text_of(data, [])
    if BEGIN in text.split("\n", 1)[0]:
        yield from _of_raven(table, text, chosen)
    else:
        yield from _of_audacity(text)


def _of_raven(table: str, text: str, chosen: Columns) -> Iterator[Stretch]:
    separator = "\t" if "\t" in text.split("\n", 1)[0] else ","
    # Raven puts no quotes around a cell: one in a label is its own.
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    names, told = list(rows.fieldnames or ()), list(rows)
    files = _files(table, names, told, chosen.path)
    label = _ravens_label(table, [name for name in names if name not in files], chosen.label)
    for row in told:
        start, end = _seconds(row.get(BEGIN)), _seconds(row.get(END))
        file = next((row[name] for name in files if row.get(name)), "")
        if file and (offset := _seconds(row.get(OFFSET))) == offset:
            start, end = offset, offset + end - start
        yield Stretch(file, start, end, (row.get(label) or "").strip() or None)


def _files(
    table: str, names: Sequence[str], rows: Sequence[Mapping[str, str]], chosen: str | None
) -> Sequence[str]:
    """The columns that name a row's recording: Raven's own, else a usual one with audio in it."""
    if one := chosen_column(names, chosen, "--path-column", table):
        return [one]
    if own := [name for name in FILES if name in names]:
        return own
    plain = {plain_name(name): name for name in names}
    usual = [plain[name] for name in PATHS if name in plain]
    return [name for name in usual if any(_is_audio(row.get(name)) for row in rows)][:1]


def _is_audio(cell: str | None) -> bool:
    return (cell or "").strip().lower().endswith(AUDIO_EXTENSIONS)


def _ravens_label(table: str, names: Sequence[str], chosen: str | None) -> str:
    """The column of labels: a usual name, else the last that is no measurement."""
    if one := chosen_column(names, chosen, "--label-column", table):
        return one
    plain = {plain_name(name): name for name in names}
    usual = [plain[name] for name in LABELS if name in plain]
    own = [name for name in names if name and not RAVENS_OWN.fullmatch(name.strip())]
    if found := [*usual[:1], *own[-1:]]:
        return found[0]
    raise ManifestError(
        f"{table!r} has no column of labels, only {', '.join(names)}; name it with --label-column."
    )


def _seconds(text: str | None) -> float:
    try:
        return float((text or "").strip().replace(",", "."))
    except ValueError:
        return math.nan


def _is_audacity(data: bytes) -> bool:
    """Whether the first lines are two numbers and a text, with tabs between them."""
    try:
        lines = text_of(data[:4096], []).splitlines()
    except UnicodeDecodeError:
        return False
    told = [line for line in lines[:3] if line.strip() and not line.startswith("\\")]
    return bool(told) and all(_audacity_row(line) for line in told)


def _audacity_row(line: str) -> tuple[float, float, str] | None:
    start, _, rest = line.partition("\t")
    end, _, label = rest.partition("\t")
    found = _seconds(start), _seconds(end)
    return None if any(map(math.isnan, found)) else (*found, label)


def _has_words(one: Stretch) -> bool:
    """Whether a label is more than numbers."""
    parts = (one.label or "").lower().split()
    return any(part != "nan" and math.isnan(_seconds(part)) for part in parts)


def _of_audacity(text: str) -> Iterator[Stretch]:
    for line in text.splitlines():
        # A line that begins with a backslash has the frequencies of the one before.
        if line.strip() and not line.startswith("\\") and (row := _audacity_row(line)):
            start, end, label = row
            yield Stretch("", start, end, label.strip() or None)


def grouped(clips: Sequence[Clip]) -> list[Clip]:
    """All stretches of a recording in one group: its own name, or what its groups are together."""
    several = {clip.path for clip in clips if clip.is_stretch}
    own: dict[str, str] = {}
    joined: dict[str, str] = {}

    def whole(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    for clip in clips:
        if clip.path in several:
            first = whole(own.setdefault(clip.path, clip.group or _name_of_recording(clip)))
            if clip.group and (other := whole(clip.group)) != first:
                joined[other] = first
    groups = [own[clip.path] if clip.path in several else clip.group for clip in clips]
    return [
        replace(clip, group=group and whole(group))
        for clip, group in zip(clips, groups, strict=True)
    ]


def _name_of_recording(clip: Clip) -> str:
    """A stretch's name without its times; unlike the path it survives a move."""
    return clip.name.rpartition("#")[0] if clip.is_stretch else clip.name
