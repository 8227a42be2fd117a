"""What `open_pool` was given, checked and made whole, before anything is started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio.lowlevel
from attrs import evolve, frozen
from msgspec import Raw

import snakepit
from snakepit.errors import ConfigError, SerializationError
from snakepit.launchers import InProcessLauncher, Launcher, SpawnLauncher
from snakepit.options import Connect, CrashBarrier, Queue, Sessions, Startup, Stop, ZeroCopy
from snakepit.pool._connecting import as_connect, connect_launcher
from snakepit.process import memory_limit
from snakepit.procfs import usable_cpus
from snakepit.protocol import Buffers, Places, encode_value
from snakepit.shm import can_share
from snakepit.transports import MemoryTransport, ShmTransport, StdioTransport, Transport
from snakepit.worker._target import (
    MAIN,
    Target,
    describe_main,
    describe_target,
    import_paths_for,
    parse_spec,
)
from snakepit.worker._wire import GRPC_VARIABLE, SHM_VARIABLE

DEFAULT_TOOL_BACKEND = "asyncio"
SHM_BUDGET_MAX = 4 * 2**30
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@frozen(kw_only=True)
class Settings:
    """The whole of one pool's configuration."""

    name: str
    size: int
    min_ready: int
    launcher: Launcher
    target: Target
    spawns_python: bool
    adapter_body: Raw
    adapter_buffers: Buffers
    import_paths: tuple[str, ...]
    tool_backend: str
    startup: Startup
    queue: Queue
    call_timeout: float | None
    stop: Stop
    sessions: Sessions
    crash_barrier: CrashBarrier
    transport: str
    shm: ShmTransport | None
    copies_results: bool
    connect: Connect | None

    @property
    def connects(self) -> bool:
        """Have others started the workers?"""
        return self.connect is not None

    def address_of(self, slot: int) -> str | None:
        """Where the worker of that slot is, if somebody else has started it."""
        return None if self.connect is None else str(self.connect.addresses[slot - 1])

    @property
    def places(self) -> Places | None:
        """Shared memory that its workers know how to be told of."""
        return self.shm.heap if self.shm is not None and self.spawns_python else None

    @property
    def retries(self) -> int:
        """How often an idempotent call is sent again after its worker died."""
        barrier = self.crash_barrier
        return barrier.max_retries if barrier.retry == "idempotent" else 0


def make_settings(
    adapter: str | type | ModuleType | None,
    *,
    command: Sequence[str] | None,
    connect: Connect | Sequence[str] | None,
    size: int | None,
    name: str,
    min_ready: int,
    transport: str | Transport,
    python: str | os.PathLike[str] | None,
    adapter_args: Sequence[Any],
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    tool_backend: str,
    startup: Startup,
    queue: Queue,
    call_timeout: float | None,
    stop: Stop,
    sessions: Sessions,
    crash_barrier: CrashBarrier,
    zero_copy: ZeroCopy,
    sweep: bool,
) -> Settings:
    """Check every argument. Raises ConfigError, and starts nothing."""
    connect = as_connect(
        connect,
        adapter=adapter,
        command=command,
        size=size,
        python=python,
        adapter_args=adapter_args,
        env=env,
        cwd=cwd,
        tool_backend=tool_backend,
        transport=transport,
    )
    if size is None:
        size = usable_cpus() if connect is None else len(connect.addresses)
    _check(_is_whole(size) and size >= 1, "size", size, "a whole number of at least 1, or None")
    _check(
        _is_whole(min_ready) and 0 <= min_ready <= size,
        "min_ready",
        min_ready,
        f"a whole number from 0 to size ({size})",
    )
    _check(_is_text(name) and name != "" and is_utf8(name), "name", name, "a non-empty string")
    _check(tool_backend in ("asyncio", "trio"), "tool_backend", tool_backend, "'asyncio' or 'trio'")
    _check(isinstance(sweep, bool), "sweep", sweep, "True or False")
    check_timeout("call_timeout", call_timeout)
    for option, value, kind in (
        ("startup", startup, Startup),
        ("queue", queue, Queue),
        ("stop", stop, Stop),
        ("sessions", sessions, Sessions),
        ("crash_barrier", crash_barrier, CrashBarrier),
        ("zero_copy", zero_copy, ZeroCopy),
    ):
        _check(isinstance(value, kind), option, value, f"a snakepit.{kind.__name__}(...)")
    if command is not None:
        _check(adapter is None, "command", command, "either an adapter or a command, not both")
        _check(python is None, "python", python, "no interpreter where there is a command")
    way = None if connect is not None else _transport(transport, zero_copy, size)
    if connect is not None:
        launcher: Launcher = connect_launcher(connect)
        target, import_paths = Target(""), tuple[str, ...]()
        startup = evolve(startup, batch_size=size, batch_delay=0)  # nothing is started
    elif isinstance(way, MemoryTransport):
        for_processes = {"command": command, "python": python, "env": env, "cwd": cwd}
        for option, given in for_processes.items():
            _check(given is None, option, given, "nothing: workers in memory are no processes")
        _check_loop(tool_backend)
        launcher = InProcessLauncher(way, _place_in_memory(adapter))
        target, import_paths = Target(""), tuple[str, ...]()
    else:
        assert way is not None
        directory, environment = _directory(cwd), _environment(env, size)
        argv, same_interpreter = _argv(command, python)
        interpreter = argv[0] if command is None else None
        launcher = SpawnLauncher(
            way, argv, environment, directory, stop.term_grace, sweep, interpreter
        )
        target = Target("") if command is not None else _target(adapter)
        import_paths = () if command is not None else _import_paths(same_interpreter)
    return Settings(
        name=name,
        size=size,
        min_ready=min_ready,
        launcher=launcher,
        target=target,
        spawns_python=command is None and connect is None,
        **_adapter_arguments(adapter_args),
        import_paths=import_paths,
        tool_backend=tool_backend,
        startup=startup,
        queue=queue,
        call_timeout=call_timeout,
        stop=stop,
        sessions=sessions,
        crash_barrier=crash_barrier,
        transport="grpc" if way is None else way.name,
        shm=way if isinstance(way, ShmTransport) else None,
        copies_results=zero_copy.copy_results,
        connect=connect,
    )


def _target(adapter: str | type | ModuleType | None) -> Target:
    if adapter is not None:
        target = describe_target(adapter)
        _check(all(map(is_utf8, _texts(target))), "adapter", adapter, "a path that is valid UTF-8")
    else:
        target = Target("")
    if target.main_path is None and target.main_module is None:
        # Not for the adapter, but for what run_sync is given and for enums of the program.
        main_path, main_module = describe_main()
        if is_utf8(main_path or "") and is_utf8(main_module or ""):
            target = Target(target.spec, main_path, main_module)
    return target


def _texts(target: Target) -> list[str]:
    return [target.spec, target.main_path or "", target.main_module or ""]


def _import_paths(same_interpreter: bool) -> tuple[str, ...]:  # noqa: FBT001 - the one argument
    """Less those whose names are no UTF-8: they cannot be put into a message."""
    return tuple(filter(is_utf8, import_paths_for(same_interpreter)))


def check_timeout(option: str, value: object) -> None:
    """Accept None and positive finite numbers."""
    good = value is None or (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < value <= sys.float_info.max
    )
    _check(good, option, value, "a finite number of seconds above 0, or None")


def _environment(extra: Mapping[str, str] | None, size: int) -> dict[str, str]:
    env = dict(os.environ)
    for variable in (SHM_VARIABLE, GRPC_VARIABLE):  # of a worker that we run in, not of ours
        env.pop(variable, None)
    threads = str(max(1, usable_cpus() // size))
    for variable in THREAD_VARIABLES:
        env.setdefault(variable, threads)
    _check(extra is None or isinstance(extra, Mapping), "env", extra, "a mapping of strings")
    for key, value in (extra or {}).items():
        _check(
            _is_os_text(key) and _is_os_text(value) and key != "" and "=" not in key,
            "env",
            {key: value},
            "names and values that are strings, without null characters",
        )
        env[key] = value
    return env


def _argv(
    command: Sequence[str] | None, python: str | os.PathLike[str] | None
) -> tuple[tuple[str, ...], bool]:
    if command is not None:
        good = not _is_text(command) and len(command) > 0
        _check(
            good and all(map(_is_os_text, command)),
            "command",
            command,
            "a non-empty sequence of strings (an argv), without null characters",
        )
        return tuple(command), False
    allowed = "the path of an executable Python interpreter"
    _check(python is None or isinstance(python, str | os.PathLike), "python", python, allowed)
    chosen = os.fspath(python or os.environ.get("SNAKEPIT_PYTHON") or sys.executable)
    found = shutil.which(chosen)
    _check(found is not None, "python", chosen, allowed)
    assert found is not None
    if os.path.abspath(found) == os.path.abspath(sys.executable):
        # Our own interpreter: it finds this package wherever we found it.
        root = str(Path(snakepit.__file__).parent.parent)
        return (found, "-P", "-c", _BOOTSTRAP.format(root=root), "snakepit-worker"), True
    return (found, "-P", "-m", "snakepit.worker"), False


_BOOTSTRAP = (
    "import sys; sys.path.append({root!r}); "
    "from snakepit.worker.__main__ import main; sys.exit(main([]))"
)


def _adapter_arguments(adapter_args: Sequence[Any]) -> dict[str, Any]:
    _check(
        not isinstance(adapter_args, str | bytes) and isinstance(adapter_args, Sequence),
        "adapter_args",
        adapter_args,
        "a sequence of arguments for the adapter",
    )
    try:
        body, buffers = encode_value(tuple(adapter_args))
    except SerializationError as error:
        raise ConfigError("adapter_args", adapter_args, str(error)) from error
    return {"adapter_body": body, "adapter_buffers": buffers}


def _directory(cwd: str | os.PathLike[str] | None) -> str | None:
    if cwd is None:
        return None
    given: object = cwd
    good = isinstance(given, str | os.PathLike) and os.path.isdir(given)
    _check(good, "cwd", cwd, "a directory that exists")
    return os.fspath(cwd)


def _transport(transport: str | Transport, zero_copy: ZeroCopy, size: int) -> Transport:
    if isinstance(transport, Transport):
        return transport
    allowed = "'auto', 'shm', 'stdio', 'grpc', 'memory' or a Transport"
    _check(transport in ("auto", "shm", "stdio", "grpc", "memory"), "transport", transport, allowed)
    if transport == "grpc":
        return _grpc()
    if transport == "auto" and can_share():
        transport = "shm"
    if transport == "shm" and zero_copy.enabled:
        budget = _budget(zero_copy)
        return ShmTransport(
            threshold=zero_copy.threshold, budget=budget // 2, worker_budget=budget // 2 // size
        )
    return MemoryTransport() if transport == "memory" else StdioTransport()


def _grpc() -> Transport:
    try:
        from snakepit.transports._grpc import GrpcTransport
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("snakepit"):
            raise
        needs = (
            f"another one, or the extra: pip install 'snakepit-pool[grpc]' (no {error.name} here)"
        )
        raise ConfigError("transport", "grpc", needs) from error
    return GrpcTransport()


def _budget(zero_copy: ZeroCopy) -> int:
    """Bytes of shared memory for the whole pool."""
    if zero_copy.budget_mb is not None:
        return zero_copy.budget_mb * 2**20
    return min(memory_limit() // 4, SHM_BUDGET_MAX)


def _place_in_memory(adapter: str | type | ModuleType | None) -> str | type | ModuleType | None:
    """The adapter as a worker of this very process finds it: a class from anywhere will do."""
    if adapter is None or isinstance(adapter, type | ModuleType):
        return adapter
    given: object = adapter
    if isinstance(given, str) and parse_spec(given)[0] == MAIN:
        return given
    return describe_target(given).spec


def _check_loop(tool_backend: str) -> None:
    """Tools in memory run on the loop that is there; the default says nothing of it."""
    running = type(anyio.lowlevel.current_token().native_token).__module__.partition(".")[0]
    _check(
        tool_backend == DEFAULT_TOOL_BACKEND or running == "trio",
        "tool_backend",
        tool_backend,
        "nothing with transport 'memory': async tools run on the loop of the pool",
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def is_utf8(text: str) -> bool:
    """Can it be put into a message? A lone surrogate cannot, so not every path can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_os_text(value: object) -> bool:
    """Can it be given to the operating system?"""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _check(good: object, option: str, value: object, allowed: str) -> None:
    if not good:
        raise ConfigError(option, value, allowed)
