"""The Ray that a run uses, with the two small actors of its own, and how it is left again.

The rule of this file: a Ray that this run has started ends with it, or with the process of a
program, and somebody's cluster stays as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from unfused.config import RunOptions
from unfused.events import Note, Phase, Stream
from unfused.locks import NoLocks
from unfused.runtime.hardware import GROWS_TO, Hardware, has_cuml, of_cluster, of_machine
from unfused.runtime.leases import Leases, held, held_on_disk, shared_leases
from unfused.runtime.relay import Pump, Relay, start_mailbox
from unfused.runtime.starting import NAMESPACE, drop, is_held, release, start, stop
from unfused.runtime.watch import watched
from unfused.store import Folder

_abandoned = False
"""Whether a Ray of this process's own was left behind (see `leave`)."""


class Cancelled(RuntimeError):
    """Nobody wants the result any more."""


@dataclass
class Cluster:
    """The Ray that this run uses, and its two small actors."""

    pump: Pump
    leases: Leases | None
    """None where nobody else builds on this cluster."""
    stream: Stream
    """Who is handed the workers' events now."""
    hardware: Hardware
    options: RunOptions
    has_locks: bool = True
    """Whether the store's file system has, as far as is known."""

    @property
    def relay(self) -> Relay:
        """Where workers put events."""
        return self.pump.relay

    def drain(self) -> None:
        """Wait until every event that workers have sent so far was handed over."""
        self.pump.drain()

    @contextmanager
    def lease(
        self,
        keys: Sequence[str],
        holder: str,
        making_room: Callable[[], AbstractContextManager[None]],
        store: Folder | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """Hold the leases of `keys`, waiting for other builders of the same keys.

        Args:
            keys: as `stage/digest`.
            holder: the run that asks.
            making_room: entered while this waits for a key; whoever builds it may need what the
                workers of this run hold.
            store: where runs on other clusters may build as well; only one on a disk has leases.
            check: called again and again while this waits; raises where that is to end.
        """

        @contextmanager
        def waiting(key: str) -> Iterator[None]:
            self.stream.emit(Note(f"waiting for another run that builds {key}"))
            with making_room():
                yield

        with ExitStack() as leased:
            if self.leases is not None:
                leased.enter_context(held(self.leases, keys, holder, waiting, check))
            if store is not None and store.local is not None and self.has_locks:
                try:
                    leased.enter_context(held_on_disk(store.local, keys, waiting, check))
                except NoLocks as none:
                    self.has_locks = False
                    self.stream.emit(Note(str(none), level="warning"))
            yield


def probe(options: RunOptions) -> Hardware:
    """Look at the hardware; joins the cluster that RAY_ADDRESS names, but starts none."""
    if not os.environ.get("RAY_ADDRESS"):
        return of_machine(options)
    start(options)
    import ray

    return of_cluster(options, ray.nodes(), os.environ.get(GROWS_TO, ""), has_cuml())


@contextmanager
def connect(
    options: RunOptions, hardware: Hardware, stream: Stream, *, shared: bool = False
) -> Iterator[Cluster]:
    """Join the cluster that RAY_ADDRESS names, else start one of this run's own.

    Args:
        shared: whether others build on it at the same time. Somebody's cluster always is.

    Raises:
        NoCluster: nothing answers at RAY_ADDRESS, or it does not let this run in.
        NotStarted: Ray did not start here, several times.
    """
    import ray

    mine = not ray.is_initialized()
    address = os.environ.get("RAY_ADDRESS")
    stream.emit(Phase(f"joining Ray at {address}" if address else "starting Ray on this machine"))
    start(options, lambda told: stream.emit(Note(told, level="warning")))
    place = beside_driver()
    leases = shared_leases(place | {"namespace": NAMESPACE}) if shared or hardware.joined else None
    cluster = Cluster(Pump(start_mailbox(place)), leases, stream, hardware, options)
    # A search gives every trial a stream of its own: it is looked up for each event.
    cluster.pump.start(lambda event: cluster.stream.emit(event))
    stream.emit(Phase())
    try:
        with watched(stream, lambda: leave(1)) if mine else nullcontext():
            yield cluster
    except BaseException:
        if mine:
            abandon()
        raise
    finally:
        cluster.pump.stop(seconds=5)
        if mine and not _abandoned:
            stop()


def abandon() -> None:
    """Leave Ray as it is when this run ends: something of it is in the middle of its work."""
    global _abandoned
    _abandoned = True


def free_places(hardware: Hardware) -> None:
    """Give back what workers of processes that were killed hold on a Ray of this run's own.

    Called while nothing trains. Ray itself frees the places of a Ray Train run whose controller was
    killed when the whole job ends, and a GPU would be held until then.
    """
    import ray
    from ray.util.placement_group import (
        PlacementGroup,
        placement_group_table,
        remove_placement_group,
    )

    if hardware.joined:
        return
    for name, place in placement_group_table().items():
        if place["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))


def leave(status: int) -> NoReturn:
    """Exit; at once where a Ray of this process's own is held, or was left in the middle of its
    work.

    Threads may still wait inside Ray's core library, which crashes when it is shut down under them.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Its disk is full, or who read it has ended; Python would try again and fail with 120.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if not (_abandoned or is_held()):
        release()
        sys.exit(status)
    drop()
    os._exit(status)


def beside_driver() -> dict[str, Any]:
    """Options of a small actor that lives as long as its driver: on the same node, on no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }
