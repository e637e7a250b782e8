"""Which Ray this run joins or starts, what fits there, threads and devices.

The rule of this room: nothing waits for what can never come. What a stage needs is held against
what the cluster has or may grow to before it starts, and refused in one sentence.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import importlib.util
import logging
import math
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from unfused.config import Config, ConfigError, RunOptions, override
from unfused.events import Event, Note, Stream

NAMESPACE = "unfused"
LEASE_SECONDS = 30.0
KNOCK_SECONDS = 10.0
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Devices of Linux without one of which torch finds no GPU: NVIDIA, AMD, Windows' subsystem."""
CPU_FLAGS = Path("/proc/cpuinfo")
GROWS_TO = "UNFUSED_GROWS_TO"
"""Environment of a cluster's head: the nodes that its autoscaler may start, as `8*CPU=8,GPU=1`,
more kinds after semicolons. Ray 2.60 tells jobs only of nodes that are there."""
HEAD = "node:__internal_head__"
ONE_HEAP = "MALLOC_ARENA_MAX"
"""glibc's setting, read when a process starts: 1 has all threads share the one heap."""
TURN_SECONDS = 0.1
"""How long a thread that computes holds a core that others wait for; the most that Linux grants."""
DOOR, CORES = 0, 1
"""The bytes of the file of `Turns` that are locked."""
LONGEST_TURN = 30.0
"""Seconds after which a turn is no longer waited for: who has it may be suspended."""
TURN_POLL_SECONDS = 0.002
SCHED_OTHER, SCHED_BATCH = 0, 3
SCHED_ATTR = struct.Struct("=IIQiIQQQ")
LINUX_CALLS = {
    "x86_64": {"sched_setattr": 314, "sched_getattr": 315},
    "aarch64": {"sched_setattr": 274, "sched_getattr": 275},
}
_abandoned = False
"""Whether a Ray of this process's own was left behind (see `leave`)."""


class DoesNotFit(ConfigError):
    """A stage needs what the cluster can never offer."""


class NoCluster(ConfigError):
    """The cluster that RAY_ADDRESS names is not there."""


class Cancelled(RuntimeError):
    """Nobody wants the result any more."""


@dataclass(frozen=True)
class Hardware:
    """What the cluster has or may grow to."""

    cpus: float
    gpus: float
    bfloat16: bool
    """Whether the devices that train have native bfloat16 arithmetic."""
    cuml: bool
    joined: bool
    """Whether this is somebody's cluster (named by RAY_ADDRESS) and not this run's own."""
    node_gpus: float = math.inf
    """The most GPUs of one node."""
    machines: int = 1
    """Machines that the cluster has or may grow to."""


def probe(options: RunOptions) -> Hardware:
    """Look at the hardware; joins the cluster that RAY_ADDRESS names, but starts none."""
    cuml = importlib.util.find_spec("cuml") is not None
    if not os.environ.get("RAY_ADDRESS"):
        gpus = _local_gpus()
        cpus = logical_cpus(options)
        return Hardware(cpus, gpus, native_bfloat16(gpus > 0), cuml, joined=False)
    _start(options)
    import ray

    return of_cluster(ray.nodes(), os.environ.get(GROWS_TO, ""), cuml)


def of_cluster(nodes: Sequence[Mapping[str, Any]], grows_to: str, cuml: bool) -> Hardware:
    """The hardware of somebody's cluster.

    Args:
        nodes: as `ray.nodes()` has them.
        grows_to: as `GROWS_TO` has it; empty for a cluster that does not grow.
        cuml: whether cuML is installed.

    Raises:
        ConfigError: `grows_to` cannot be read.
    """
    alive = [node for node in nodes if node["Alive"]]
    shapes = [node["Resources"] for node in alive]
    hosts = {node["NodeManagerAddress"] for node in alive}
    heads = [shape for shape in shapes if HEAD in shape]
    grown = heads + [shape for count, shape in _node_kinds(grows_to) for _ in range(count)]
    # Nodes that are there now may be some of those that the cluster grows to.
    cpus, gpus = (max(_total(shapes, name), _total(grown, name)) for name in ("CPU", "GPU"))
    return Hardware(
        cpus,
        gpus,
        native_bfloat16(gpus > 0),
        cuml,
        joined=True,
        node_gpus=max((shape.get("GPU", 0.0) for shape in shapes + grown), default=0.0),
        machines=max(len(hosts), len(grown)),
    )


def _total(shapes: Sequence[Mapping[str, float]], resource: str) -> float:
    return sum(shape.get(resource, 0.0) for shape in shapes)


def _node_kinds(text: str) -> list[tuple[int, dict[str, float]]]:
    """`8*CPU=8,GPU=1; 4*CPU=16` as how many there may be of what."""
    kinds = []
    try:
        for kind in filter(None, map(str.strip, text.split(";"))):
            count, _, shape = kind.partition("*")
            pairs = (resource.split("=") for resource in shape.split(","))
            kinds.append((int(count), {name.strip(): float(amount) for name, amount in pairs}))
    except ValueError:
        raise ConfigError(
            f"{GROWS_TO}={text!r} does not read like 8*CPU=8,GPU=1; correct it where the cluster's"
            " head is started."
        ) from None
    return kinds


def resolve(config: Config, hardware: Hardware) -> Config:
    """Turn every `auto` that changes numbers into what this hardware makes of it."""
    from unfused import clustering

    precision = "bfloat16" if hardware.bfloat16 else "float32"
    auto = [name for name, section in config if getattr(section, "precision", "") == "auto"]
    backend = clustering.resolve(config.cluster.backend, int(hardware.gpus), hardware.cuml)
    changes = {f"{name}.precision": precision for name in auto}
    return override(config, changes | {"cluster.backend": backend})


def gpus_per_worker(options: RunOptions, hardware: Hardware) -> float:
    """One GPU for each worker where there are any, unless the options say otherwise."""
    if options.gpus_per_worker is not None:
        return options.gpus_per_worker
    return 1 if hardware.gpus else 0


def check_fit(stage: str, needs: dict[str, float], hardware: Hardware) -> None:
    """Refuse what can never run.

    Raises:
        DoesNotFit: names the stage, what is missing and the remedy.
    """
    for resource, has in (("CPU", hardware.cpus), ("GPU", hardware.gpus)):
        wanted = needs.get(resource, 0)
        if wanted > has:
            raise DoesNotFit(
                f"{stage} needs {wanted:g} {resource}s and this "
                f"{'cluster' if hardware.joined else 'machine'} has or may grow to {has:g}; "
                "lower --num-workers or --gpus-per-worker, or run on a larger cluster."
            )


def check_cluster(options: RunOptions, hardware: Hardware) -> None:
    """Refuse a worker that no node can hold, and a store that other machines cannot see.

    Raises:
        DoesNotFit: a worker's GPUs are more than those of any node.
        ConfigError: the store is a folder of one machine, and the cluster has several.
    """
    each = gpus_per_worker(options, hardware)
    if each > hardware.node_gpus:
        raise DoesNotFit(
            f"A worker needs {each:g} GPUs and no machine of this cluster has or will have more"
            f" than {hardware.node_gpus:g}; lower --gpus-per-worker."
        )
    if hardware.machines > 1 and "://" not in options.store:
        raise ConfigError(
            f"--store {options.store} is a folder of one machine and this cluster has or may grow"
            f" to {hardware.machines}; give s3://bucket/path, gs://bucket/path, or file:///path for"
            " a folder that all of them mount (UNFUSED_STORE sets it for every run)."
        )


def shown(needs: dict[str, float]) -> str:
    """`{"CPU": 2.0, "GPU": 1.0}` as "2 CPU, 1 GPU"."""
    return ", ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)


def available_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def logical_cpus(options: RunOptions) -> int:
    """CPUs that a cluster of this run's own declares.

    Workers and as many Ray Data tasks, a clustering and one more task, for every pipeline that runs
    at a time, and one for the small actors that look after them: on a small machine they share
    cores, but none may wait for a CPU that never comes free.
    """
    pipelines = options.concurrency * (2 * options.num_workers + 2)
    return max(available_cpus(), pipelines + (options.concurrency > 1))


def native_bfloat16(gpu: bool) -> bool:
    """Whether bfloat16 arithmetic is native; emulated it is slower than float32."""
    if gpu:
        import torch

        return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (8, 0)
    if not CPU_FLAGS.exists():
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(CPU_FLAGS.read_text().split()))


def _local_gpus() -> int:
    """GPUs that torch sees; it is imported (seconds) only where a driver is."""
    if sys.platform == "linux" and not any(Path(path).exists() for path in GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def prepare_process(num_processes: int = 1) -> None:
    """Give a process that computes with torch its share of the cores and a calm allocator.

    glibc returns every large tensor to the kernel and pays page faults to get it back, up to half
    of a training step on CPU: large blocks stay in the heap instead. That of the process, which
    never shrinks: further heaps, for the threads that Ray computes on, go when they are empty (see
    `ONE_HEAP`).
    """
    import torch

    torch.set_num_threads(max(1, available_cpus() // num_processes))
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 64 * 2**20)
        mallopt(m_arena_max, 1)


@contextmanager
def in_background() -> Iterator[None]:
    """Processes and threads that are started here never interrupt one that computes.

    Ray keeps a dozen processes that wake a hundred times a second each. A step of training goes on
    on all cores or on none: whichever core one of them takes, all of it waits.
    """
    before = _scheduling()
    _schedule(_Scheduling(policy=SCHED_BATCH, niceness=before.niceness))
    try:
        yield
    finally:
        _schedule(before)


def hold_cores() -> None:
    """Take this thread, and those it starts, out of the background, with long turns on a core.

    Linux has turns of any length since 6.12; where it has not, nothing else changes.
    """
    turn = round(TURN_SECONDS * 1e9)
    _schedule(_Scheduling(policy=SCHED_OTHER, niceness=_scheduling().niceness, turn=turn))


def turns(world: int, device: Any) -> AbstractContextManager[None]:
    """What every pass through a model is taken in: `Turns` where it is threads on shared cores.

    Args:
        world: processes that train together. Those of several wait for one another inside a step:
            two such runs, each on a machine that the other one waits for, would not go on.
        device: torch's; a step on a GPU needs no core.
    """
    import torch

    cores = available_cpus()
    if world == 1 and device.type == "cpu" and torch.get_num_threads() == cores > 1:
        # Without a place for the file, or locks there, nobody waits for anybody.
        with suppress(OSError):
            return Turns(Path(tempfile.gettempdir()))
    return nullcontext()


class Turns:
    """One process at a time, of one user's on the very same cores; two of them alternate.

    The threads of a step of training wait for one another hundreds of times, many of them by
    looking again and again. Where half of them have no core, because another run's step has it,
    both runs crawl, ten times slower and more. In turns, each has almost half the speed.

    The locks are the process's: it has one `Turns`, and they end with it.

    Args:
        folder: where those who share the cores find one another.

    Raises:
        OSError: nothing can be written or locked there.
    """

    def __init__(self, folder: Path) -> None:
        cores = sum(1 << core for core in os.sched_getaffinity(0))
        path = folder / f"unfused-{os.getuid()}-cores-{cores:x}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._try(CORES)
        self._unlock(CORES)

    def __enter__(self) -> None:
        # Who is next waits in the door: who was in there cannot come back before.
        if self._lock(DOOR) and self._lock(CORES):
            os.utime(self._file)
        self._unlock(DOOR)

    def __exit__(self, *_: object) -> None:
        self._unlock(CORES)

    def _lock(self, place: int) -> bool:
        """Wait for it; False where the turn that is taken now has lasted too long."""
        while not self._try(place):
            if time.time() - os.fstat(self._file).st_mtime > LONGEST_TURN:
                return False
            time.sleep(TURN_POLL_SECONDS)
        return True

    def _try(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, place: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


class _Scheduling(NamedTuple):
    """Linux' struct sched_attr, of the calling thread."""

    size: int = 48
    policy: int = SCHED_OTHER
    flags: int = 0
    niceness: int = 0
    priority: int = 0
    turn: int = 0
    """Nanoseconds on a core before others that wait may have it; 0 is as the system has it."""
    deadline: int = 0
    period: int = 0


def _scheduling() -> _Scheduling:
    found = ctypes.create_string_buffer(SCHED_ATTR.size)
    _call_linux("sched_getattr", 0, found, SCHED_ATTR.size, 0)
    return _Scheduling(*SCHED_ATTR.unpack(found))


def _schedule(wanted: _Scheduling) -> None:
    _call_linux("sched_setattr", 0, SCHED_ATTR.pack(*wanted), 0)


def _call_linux(name: str, *arguments: Any) -> None:
    """A system call for which Python has no function; none on other systems and processors."""
    number = LINUX_CALLS.get(os.uname().machine, {}).get(name)
    if sys.platform == "linux" and number is not None:
        ctypes.CDLL(None).syscall(number, *arguments)


def autocast(device: Any, precision: str) -> Any:
    """Autocast to a resolved precision on a torch device."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class _Relay:
    """Carries events from worker processes to the driver (an asynchronous actor)."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    async def put(self, event: Event) -> None:
        await self._queue.put(event)

    async def take(self, seconds: float) -> list[Event]:
        events: list[Event] = []
        with suppress(TimeoutError):
            events.append(await asyncio.wait_for(self._queue.get(), seconds))
        while not self._queue.empty():
            events.append(self._queue.get_nowait())
        return events


class _Leases:
    """Who builds which key: one builder at a time, and a dead one's lease passes on."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float]] = {}

    def acquire(self, key: str, holder: str) -> bool:
        """Take or renew the lease of `key`; False while somebody else holds it."""
        owner, expires = self._held.get(key, (holder, 0.0))
        if owner != holder and expires > time.monotonic():
            return False
        self._held[key] = (holder, time.monotonic() + LEASE_SECONDS)
        return True

    def release(self, key: str, holder: str) -> None:
        if self._held.get(key, ("", 0.0))[0] == holder:
            del self._held[key]


@dataclass
class Cluster:
    """The Ray that this run uses, and its two small actors."""

    relay: Any
    leases: Any
    """None where nobody else builds on this cluster."""
    stream: Stream
    hardware: Hardware
    options: RunOptions
    session: Any = None
    """The `training.Session` of this run."""

    def drain(self) -> None:
        """Hand over every event that workers have sent so far."""
        import ray

        for event in ray.get(self.relay.take.remote(0.01)):
            self.stream.emit(event)

    @contextmanager
    def lease(self, keys: list[str], holder: str) -> Iterator[None]:
        """Hold the leases of `keys`, waiting for other builders of the same keys."""
        if self.leases is None:
            yield
            return
        stop = threading.Event()
        for key in sorted(keys):
            self._wait(key, holder)
        beat = threading.Thread(target=self._renew, args=(keys, holder, stop), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            for key in keys:
                self.leases.release.remote(key, holder)

    def _wait(self, key: str, holder: str) -> None:
        import ray

        told = False
        while not ray.get(self.leases.acquire.remote(key, holder)):
            if not told:
                # Whoever builds it may need what this run's workers hold.
                self.session.release()
                self.stream.emit(Note(f"waiting for another run that builds {key}"))
                told = True
            time.sleep(0.5)

    def _renew(self, keys: list[str], holder: str, stop: threading.Event) -> None:
        while not stop.wait(LEASE_SECONDS / 3):
            for key in keys:
                self.leases.acquire.remote(key, holder)


@contextmanager
def connect(
    options: RunOptions, hardware: Hardware, stream: Stream, *, shared: bool = False
) -> Iterator[Cluster]:
    """Join the cluster that RAY_ADDRESS names, else start one of this run's own.

    Args:
        shared: whether others build on it at the same time. Somebody's cluster always is.
    """
    import ray

    mine = not ray.is_initialized()
    _start(options)
    relay = ray.remote(_Relay).options(**beside_driver()).remote()
    leases = _shared_leases() if shared or hardware.joined else None
    cluster = Cluster(relay, leases, stream, hardware, options)
    stop = threading.Event()
    pump = threading.Thread(target=_pump, args=(cluster, stop), daemon=True)
    pump.start()
    try:
        yield cluster
    except BaseException:
        if mine:
            abandon()
        raise
    finally:
        stop.set()
        pump.join(timeout=5)
        if mine and not _abandoned:
            ray.shutdown()


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
    """Exit, at once where a run has left its own Ray in the middle of its work.

    Threads may still wait inside Ray's core library, which crashes when it is shut down under them.
    Ray's reaper ends the processes that the run had started.
    """
    if not _abandoned:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _shared_leases() -> Any:
    """The one actor that all runs on this cluster ask."""
    import ray

    shared = ray.remote(_Leases)
    return shared.options(
        name="leases",
        get_if_exists=True,
        lifetime="detached",
        namespace=NAMESPACE,
        **beside_driver(),
    ).remote()


def beside_driver() -> dict[str, Any]:
    """Options of a small actor that lives as long as its driver: on the same node, on no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }


def _pump(cluster: Cluster, stop: threading.Event) -> None:
    import ray

    while not stop.is_set():
        try:
            events = ray.get(cluster.relay.take.remote(0.5))
        except Exception:
            return
        for event in events:
            cluster.stream.emit(event)


def _start(options: RunOptions) -> None:
    # Read when Ray's core library is loaded: its C++ side writes to stderr past Python's logging.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        return
    quiet_ray()
    package_root = str(Path(__file__).resolve().parents[1])
    paths = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    os.environ.setdefault(ONE_HEAP, "1")
    common: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if os.environ.get("RAY_ADDRESS"):
        settings = (name for name in os.environ if name.startswith("UNFUSED_"))
        mine = ("PYTHONPATH", ONE_HEAP, *settings)
        # A job's own runtime environment is this process's: where both set a name, ours has it.
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        sent = {"env_vars": {name: os.environ[name] for name in mine}}
        try:
            _knock(os.environ["RAY_ADDRESS"])
            with _native_stderr_closed():
                ray.init(runtime_env=sent, **common)
        except (OSError, RuntimeError, ValueError) as error:
            raise NoCluster(
                f"No Ray cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']} lets this run in; start"
                " it, export RAY_AUTH_MODE=token where it asks for its ~/.ray/auth_token, or unset"
                " RAY_ADDRESS to run on this machine."
            ) from error
        return
    # Ray has its workers step back (15) for whatever else computes here: of two threads that train
    # one would then have next to nothing of a core that is shared, and the other one waits for it.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with _native_stderr_closed(), in_background():
        ray.init(address="local", num_cpus=logical_cpus(options), include_dashboard=False, **common)


def _knock(address: str) -> None:
    """Fail where nothing listens, for which Ray itself would wait for ever.

    Raises:
        OSError: nothing does.
    """
    from ray._private.services import canonicalize_bootstrap_address

    found = canonicalize_bootstrap_address(address)
    if found and "://" not in found:
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Ray's core library writes to the descriptor itself; exceptions still come."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def quiet_ray() -> None:
    """Keep Ray's own progress bars and chatter out of the run's output."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Importing Ray Data sets its loggers up; only then can they be turned down.
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
