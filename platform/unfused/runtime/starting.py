"""How a process joins the Ray that RAY_ADDRESS names, or starts one of its own, and stops it again.

The rule of this file: a Ray of a process's own is for nobody else: it listens on this machine
alone, asks for a token, and leaves nothing behind. What it lacks here is a sentence before it is
started; a start that fails is tried again.
"""

from __future__ import annotations

import atexit
import logging
import os
import resource
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from unfused import cores, signals
from unfused.config import ConfigError, RunOptions
from unfused.corpora import location
from unfused.runtime.hardware import jobs_of_gpu, local_gpus, logical_cpus
from unfused.runtime.place import Place
from unfused.secrets import hidden

NAMESPACE = "unfused"
ANSWER_SECONDS = 10.0
"""How long a cluster's head may take to answer at all."""
LOOPBACK = "127.0.0.1"
PATIENCE: Mapping[str, str] = {
    # With a busy machine, in seconds: the node registers (30 by default), its head has a port (30),
    # its agents answer (30), a worker registers (60).
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_gcs_server_port_wait_time_s": "60",
    "RAY_agent_register_timeout_ms": "90000",
    "RAY_worker_register_timeout_seconds": "180",
}
PRIVATE: Mapping[str, str] = {
    # The one port of a node that listens on all interfaces whatever the node's own address is.
    "RAY_enable_metrics_collection": "0",
    # Workers that train together talk over this interface.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""What keeps a Ray of a process's own to this machine."""
AGENTS = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
"""Ray's names for the ports of what serves a node."""
TRIES = 3
LEAST_FILES = 1024
"""Files that Ray's processes and this one have open, each, at most."""
SHARED_MEMORY = Path("/dev/shm")
STORE_SHARE = 0.3
"""Of the memory: Ray's object store, by Ray's own default."""
LEAST_STORE, MOST_STORE_ON_DISK = 2**29, 2 * 2**30
"""Bytes of an object store that is worth the shared memory that is left, and of one on disk."""

Tell = Callable[[str], None]
"""Takes a sentence that a person should read."""

_place: Place | None = None
"""What this process's own Ray keeps."""
_held = False
"""Whether this process's own Ray is there until the process ends (see `hold`)."""


class NoCluster(ConfigError):
    """The cluster that RAY_ADDRESS names is not there."""


class NoRoom(ConfigError):
    """This machine, or this user's share of it, is too small for Ray."""


class NotStarted(RuntimeError):
    """Ray did not start on this machine."""


def prepare() -> None:
    """Settle what a Ray of this process's own needs of the machine; starts nothing.

    Raises:
        NoRoom: it may not open enough files, or has no memory for objects.
        NoPlace: there is no folder for its sockets.
    """
    global _place
    joins = bool(os.environ.get("RAY_ADDRESS"))
    for name, value in {**PATIENCE, **({} if joins else PRIVATE)}.items():
        os.environ.setdefault(name, value)
    if joins or _place is not None:
        return
    allow_files()
    _place = Place.make()
    object_store(_place.folder, lambda _: None)
    atexit.register(clear)


def start(options: RunOptions, tell: Tell = lambda _: None) -> None:
    """Join the cluster that RAY_ADDRESS names, or start a Ray here, unless this process has one.

    Args:
        options: of the run.
        tell: is told of what a person should know.

    Raises:
        NoCluster: nothing answers at RAY_ADDRESS, or it does not let this run in.
        NotStarted: Ray did not start here, several times.
        ConfigError: see `prepare`.
    """
    address = os.environ.get("RAY_ADDRESS")
    # Read when Ray's core library is loaded: its C++ side writes to stderr past Python's logging.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        return
    prepare()
    quiet_ray()
    _hide_command_line()
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    for name, value in cores.ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    common: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address:
        _join(address, common)
    else:
        _start_here(options, common, tell)
    signals.listen_again()


def stop() -> None:
    """Leave the Ray that this process has joined, or end the one that it has started, unless it is
    held."""
    if is_held():
        return
    import ray

    ray.shutdown()
    clear()


def hold() -> None:
    """Keep a Ray that this process starts from now on until `drop`.

    Ray's core library may end the process that shuts it down, with status 1 and not a word, where
    the machine is busy: before a program has said what came of its run.
    """
    global _held
    _held = _place is None


def release() -> None:
    """Have `stop` end what this process starts, as ever."""
    global _held
    _held = False


def is_held() -> bool:
    """Whether there is a Ray of this process's own, which is to be there until `drop`."""
    return _held and _place is not None


def drop() -> None:
    """End the Ray that this process has started, without a word to it; for the last moment of a
    process.

    Its agents would wait a minute for a control store that is gone.
    """
    if _place is not None:
        _kill(str(_place.folder), {os.getpid()})
    clear()


def clear() -> None:
    """Remove what this process's own Ray has kept."""
    global _place
    if _place is not None:
        _place.remove()
        _place = None


def scratch() -> Path | None:
    """Where this process and those of its own Ray keep what they make for a while, which goes with
    them; None where it joins somebody's."""
    return _place and _place.scratch


def allow_files() -> None:
    """Have this process, and those that it starts, open as many files as it may.

    Raises:
        NoRoom: that is fewer than a run needs.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < LEAST_FILES:
        raise NoRoom(
            f"This user may have {most} files open and a run needs {LEAST_FILES}; raise the limit"
            f" (`ulimit -Hn {LEAST_FILES}`, or --ulimit nofile={LEAST_FILES} of a container)."
        )


def _start_here(options: RunOptions, common: dict[str, Any], tell: Tell) -> None:
    assert _place is not None
    # Ray has its workers step back (15) for whatever else computes here: of a core that somebody
    # else wants they would have next to nothing.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Nor does it help to start a process for each declared CPU before anything is to be done.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    gpus = local_gpus()
    settings = {
        "address": "local",
        "num_cpus": logical_cpus(options, gpus * jobs_of_gpu(gpus)),
        "include_dashboard": False,
        "_temp_dir": str(_place.folder),
        **object_store(_place.folder, tell),
        **common,
    }
    _keep_advice_out()
    with _handed_on(_place):
        _persistently(settings, tell)


def _persistently(settings: Mapping[str, Any], tell: Tell) -> None:
    import ray

    known = set(cores.descendants(os.getpid()))
    for left in reversed(range(TRIES)):
        try:
            with _native_stderr_closed(), _settled():
                ray.init(**settings)
            return
        except (ValueError, TypeError):
            # Of what it was asked for; another time it would say the same.
            raise
        except Exception as error:
            with suppress(Exception):
                ray.shutdown()
            _kill(settings["_temp_dir"], known)
            if not left:
                raise NotStarted(
                    f"Ray did not start in {TRIES} attempts ({_first_line(error)}); let the"
                    " machine finish what else it does, or give it more memory, and run again."
                ) from error
            tell(f"Ray did not start ({_first_line(error)}); trying again")


@contextmanager
def _settled() -> Iterator[None]:
    """Have the node that is started be at the loopback address, its agents listen on ports that are
    chosen here, and three processes stay away; `ray.init` has no words for any of it.

    It takes a loopback address for a wish for this machine's own. A node that is to learn the ports
    from its agents waits fifteen seconds for these, whatever is set, and dies; their imports alone
    take as long on a busy machine.

    One of the three watches for nodes to add or to take away, one reads the logs for a driver that
    prints them, and of the dashboard that is left out Ray starts what reports its use: it waits
    for that, half of a start.
    """
    from ray._private import parameter, services

    kept = parameter.RayParams, services.start_api_server
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in AGENTS]
        ports = {name: one.getsockname()[1] for name, one in zip(AGENTS, sockets, strict=True)}

    def settled(**given: Any) -> Any:
        alone = {"node_ip_address": LOOPBACK, "no_monitor": True, "include_log_monitor": False}
        return kept[0](**given | ports | alone)

    parameter.RayParams = settled
    services.start_api_server = lambda *_, **__: (None, None)
    try:
        yield
    finally:
        parameter.RayParams, services.start_api_server = kept


def _kill(folder: str, known: set[int]) -> None:
    """Kill the processes of a Ray that this process has started.

    Args:
        folder: of the Ray, which its processes are given.
        known: processes that were there before.
    """
    # Those that were started last come first: who is alone would be told of it, and say so.
    for process in reversed([one for one in cores.descendants(os.getpid()) if one not in known]):
        with suppress(OSError):
            told = Path(f"/proc/{process}/cmdline").read_bytes()
            # Some give themselves a title in the place of their command.
            if os.fsencode(folder) in told or told.startswith(b"ray"):
                os.kill(process, signal.SIGKILL)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def object_store(folder: Path, tell: Tell) -> dict[str, Any]:
    """Ray's settings of its object store, where the shared memory has no room for the default.

    Args:
        folder: where it is if need be.
        tell: see `start`.

    Raises:
        NoRoom: there is none in either.
    """
    wanted = int(STORE_SHARE * cores.available_memory())
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    if free > wanted:
        return {}
    if free > LEAST_STORE:
        return {"object_store_memory": int(0.9 * free)}
    room = min(wanted, MOST_STORE_ON_DISK, shutil.disk_usage(folder).free // 2)
    if room < LEAST_STORE:
        raise NoRoom(
            f"Neither {SHARED_MEMORY} nor {folder.parent} has {LEAST_STORE >> 20} MiB free for"
            " Ray's objects; free some, or give the container --shm-size=2g."
        )
    tell(
        f"{SHARED_MEMORY} has only {free >> 20} MiB free: Ray keeps its objects in {folder}, which"
        " is slower (a container takes --shm-size=2g)"
    )
    return {"object_store_memory": room, "_plasma_directory": str(folder)}


@contextmanager
def _handed_on(place: Place) -> Iterator[None]:
    """Let Ray's processes have what they make for a while in `place`, and ask one another for its
    token, unless the environment says otherwise; of this process nothing changes."""
    from ray._raylet import AuthenticationTokenLoader

    handed = {"TMPDIR": str(place.scratch)}
    # Else a library of this process's might keep what is for the others.
    tempfile.gettempdir()
    wanted = os.environ.get("RAY_AUTH_MODE", "token") == "token"
    if wanted and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        AuthenticationTokenLoader.instance().reset_cache()
        handed["RAY_AUTH_TOKEN_PATH"] = str(place.token)
    kept = {name: os.environ.get(name) for name in handed}
    os.environ.update(handed)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _join(address: str, common: dict[str, Any]) -> None:
    import ray

    # A job's own runtime environment is this process's: where both set a name, ours has it.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    sent = {"env_vars": sent_environment()}
    try:
        _check_answers(address)
        with _native_stderr_closed():
            ray.init(runtime_env=sent, **common)
    except (OSError, RuntimeError, ValueError) as error:
        raise NoCluster(
            f"No Ray cluster at RAY_ADDRESS={address} lets this run in; start"
            " it, export RAY_AUTH_MODE=token where it asks for its ~/.ray/auth_token, or unset"
            " RAY_ADDRESS to run on this machine."
        ) from error


def sent_environment() -> dict[str, str]:
    """What of this process's environment goes to a cluster's workers: nothing that holds a secret,
    because Ray's record of the job has it."""
    settings = (name for name in os.environ if name.startswith("UNFUSED_"))
    names = ("PYTHONPATH", *cores.ENVIRONMENT, *settings)
    mine = {name: os.environ.get(name, "") for name in names}
    return {name: value for name, value in mine.items() if hidden(value) == value}


def _hide_command_line() -> None:
    """Call this process by its command line without the secrets, as text: Ray's record of its job
    has it, and whoever lists the machine's processes."""
    from ray._raylet import setproctitle

    words = os.fsdecode(Path("/proc/self/cmdline").read_bytes()).strip("\0").split("\0")
    # Ray's record is UTF-8, names of files need not be.
    shown = [location.spelled(hidden(word)) for word in words]
    if shown != words:
        setproctitle(shlex.join(shown))


def _check_answers(address: str) -> None:
    """Fail where nothing listens, for which Ray itself would wait for ever.

    Raises:
        OSError: nothing does.
    """
    from ray._private.services import canonicalize_bootstrap_address

    found = canonicalize_bootstrap_address(address)
    if found and "://" not in found:
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


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


ADVICE = " worker processes have been started on node"
"""What Ray tells programmers where a few actors start at once on few cores."""


def _keep_advice_out() -> None:
    """Drop that line of what Ray's raylet says in this process; all else that it says stays."""
    from ray._private import worker

    said = worker.print_to_stdstream
    if hasattr(said, "advice"):
        return

    def say(data: Mapping[str, Any], **how: Any) -> None:
        if not any(ADVICE in line for line in data["lines"]):
            said(data, **how)

    say.advice = ADVICE
    worker.print_to_stdstream = say


def quiet_ray() -> None:
    """Keep Ray's own progress bars and chatter out of the run's output."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Importing Ray Data sets its loggers up; only then can they be turned down.
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It tells of an error what is raised as well, and where a log is that goes with this process.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
