"""`unfused verify`: every file of a store held against what was written.

The rule of this file: it changes nothing unless it is asked to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console

from unfused.commands import places
from unfused.config import ConfigError
from unfused.store import Store


def verify(location: str, console: Console, *, repair: bool) -> dict[str, Any]:
    """Read every file of every artifact.

    Args:
        location: of the store.
        console: where every artifact that is damaged is told of.
        repair: whether these are set aside, so that the next run builds them again.

    Returns:
        `artifacts`, how many there are, and `damaged`: for each of these `artifact` (stage/key),
        `files` (name and what is wrong) and `set_aside`, where it lies now, if it was moved.
    """
    store = places.there(location)
    store.check_readable()
    with store.telling():
        keys = [*store.artifacts()]
        if not keys:
            raise ConfigError(
                f"There is no artifact in {store.root.shown}; name a store with --store."
            )
        damaged = [*_damaged(store, keys, console, repair)]
    console.print(f"{len(keys)} artifacts, {len(damaged)} damaged.")
    return {"artifacts": len(keys), "damaged": damaged}


def _damaged(
    store: Store, keys: list[tuple[str, str]], console: Console, repair: bool
) -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (stage, key), wrong in pool.map(lambda one: (one, store.check(*one)), keys):
            if not wrong:
                continue
            place = f"{stage}/{key}"
            for one in wrong:
                console.print(f"{place}: {one.file}: {one.what}", markup=False, highlight=False)
            aside = store.set_aside(stage, key) if repair else None
            if aside:
                told = f"{place}: set aside in {aside.uri}; the next run builds it again"
                console.print(told, markup=False, highlight=False)
            yield {
                "artifact": place,
                "files": {one.file: one.what for one in wrong},
                "set_aside": aside and aside.uri,
            }
