"""The sockets that a process and all that it has started listen on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from unfused.cores import descendants

LISTENS = "0A"


def listening(process: int) -> set[tuple[str, str]]:
    """Owner, as its command or its title begins, and address of every one, on TCP.

    Args:
        process: at the top.
    """
    found = set()
    addresses = dict(_addresses())
    for one in descendants(process):
        with suppress(OSError):
            words = Path(f"/proc/{one}/cmdline").read_bytes().decode().split("\0")
            for descriptor in os.scandir(f"/proc/{one}/fd"):
                with suppress(OSError):
                    inode = os.readlink(descriptor.path)
                    if inode in addresses:
                        found.add((_owner(words), addresses[inode]))
    return found


def _owner(words: list[str]) -> str:
    """`gcs_server`, `dashboard/agent.py`, `ray::RayTrainWorker`."""
    scripts = [word for word in words[:4] if word.endswith(".py")]
    path = Path(scripts[-1] if scripts else words[0])
    return path.name if path.is_absolute() else words[0]


def _addresses() -> Iterator[tuple[str, str]]:
    """`socket:[inode]` and address of all that listen on this machine."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS:
                yield f"socket:[{fields[9]}]", _address(fields[1].partition(":")[0])


def _address(text: str) -> str:
    """Of hexadecimal digits, each four bytes from the last to the first."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    found = ip_address(b"".join(words))
    return str(getattr(found, "ipv4_mapped", None) or found)
