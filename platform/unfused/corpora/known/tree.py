"""The files of a data set as it was unpacked, and the lists that it was published with.

The rule of this file: one listing of the folder answers every question about what is there; no
audio is opened.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from unfused.corpora import location
from unfused.corpora.clip import Clip, ManifestError


class Tree:
    """What lies below the folder of a data set.

    Args:
        place: absolute path or URI of the folder.
        title: what people call the data set.
    """

    def __init__(self, place: str, title: str) -> None:
        self.place, self.title = place, title

    @cached_property
    def files(self) -> dict[str, location.Listed]:
        """Every file by its path below the folder, sorted."""
        return dict(location.files_under(self.place))

    def base(self, *markers: str) -> tuple[str, str]:
        """The folder that one of these files lies in, as a prefix of paths, and the file's path.

        An archive may have been unpacked here or some folders below: the shallowest is taken.

        Raises:
            ManifestError: none is there.
        """
        for marker in markers:
            found = [name for name in self.files if f"/{name}".endswith(f"/{marker}")]
            if found:
                name = min(found, key=lambda name: (name.count("/"), name))
                return name.removesuffix(marker), name
        raise self.lacking(" or ".join(markers))

    def by_end(self, num_parts: int) -> dict[str, str]:
        """Every file by the last parts of its path, for lists that leave out the folders above."""
        return {"/".join(name.split("/")[-num_parts:]): name for name in self.files}

    def lacking(self, what: str) -> ManifestError:
        """What to say where the data set is not below the folder."""
        return ManifestError(
            f"There is no {what} below {self.place!r}; give the folder that {self.title} was"
            " unpacked in."
        )

    def lines(self, name: str) -> list[str]:
        """The lines of a text file that are not blank, without what ends them."""
        text = location.read_bytes(location.join(self.place, name)).decode("utf-8-sig", "replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def rows(
        self, name: str, columns: Sequence[str], delimiter: str = ","
    ) -> Iterator[Mapping[str, str]]:
        """The rows of a table by the names of its header.

        Raises:
            ManifestError: a column is missing, or a cell of it is empty.
        """
        text = io.StringIO("\n".join(self.lines(name)))
        table = csv.DictReader(text, delimiter=delimiter, restval="")
        for column in columns:
            if column not in (table.fieldnames or ()):
                raise ManifestError(
                    f"{name} below {self.place!r} has no column {column!r}; unpack {self.title}"
                    " again."
                )
        for row in table:
            if empty := next((column for column in columns if not row[column].strip()), ""):
                raise ManifestError(
                    f"Line {table.line_num} of {name} below {self.place!r} has no {empty!r}; unpack"
                    f" {self.title} again."
                )
            yield row

    def entries(self, name: str, keys: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        """The entries of a JSON object, sorted by their names.

        Raises:
            ManifestError: it is none, or an entry lacks a text of one of the keys.
        """
        told = json.loads(location.read_bytes(location.join(self.place, name)))
        if not isinstance(told, dict):
            raise ManifestError(
                f"{name} below {self.place!r} is no JSON object; unpack {self.title} again."
            )
        for entry, facts in sorted(told.items()):
            known = facts if isinstance(facts, dict) else {}
            if lacks := next((key for key in keys if not isinstance(known.get(key), str)), ""):
                raise ManifestError(
                    f"{entry!r} of {name} below {self.place!r} has no {lacks!r}; unpack"
                    f" {self.title} again."
                )
            yield entry, facts

    def clip(self, name: str, label: str, **more: Any) -> Clip:
        """A file as a clip; of size -1 where there is none."""
        size, modified = self.files.get(name, location.MISSING)
        place = location.join(self.place, name)
        return Clip(place, label, size=size, modified=modified, name=name, **more)
