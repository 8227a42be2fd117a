"""The option classes of `open_pool`: frozen, validated when built.

A wrong value is a `ConfigError` that names the option, the value and what is allowed. All times
are seconds. These classes are the host's; a worker gets plain numbers in its Start message.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal, TypeAlias

from attrs import Attribute, field, frozen

from snakepit._address import UNIX_PATH_BYTES_MAX, Address, parse_address
from snakepit.errors import ConfigError

__all__ = ["Connect", "CrashBarrier", "Queue", "Sessions", "Startup", "Stop", "ZeroCopy"]

Validator = Callable[[Any, "Attribute[Any]", Any], None]


def number(*, least: float = 0.0, above: bool = False, optional: bool = False) -> Validator:
    """Accept finite numbers from `least` on (or above it); None too where it is optional."""
    allowed = f"a finite number {'above' if above else 'of at least'} {least:g}"
    allowed += ", or None" if optional else ""

    def validate(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        good = isinstance(value, int | float) and not isinstance(value, bool)
        # A comparison, not math.isfinite: that raises for an int beyond every float.
        if not good or not least <= value <= sys.float_info.max or (above and value == least):
            raise ConfigError(f"{type(instance).__name__}.{attribute.name}", value, allowed)

    return validate


def whole(*, least: int, optional: bool = False) -> Validator:
    """Accept whole numbers from `least` on; None too where it is optional."""
    allowed = f"a whole number of at least {least}" + (", or None" if optional else "")

    def validate(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{type(instance).__name__}.{attribute.name}", value, allowed)

    return validate


def one_of(*choices: str) -> Validator:
    """Accept these words."""
    allowed = " or ".join(map(repr, choices))

    def validate(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) or value not in choices:
            raise ConfigError(f"{type(instance).__name__}.{attribute.name}", value, allowed)

    return validate


def is_duration(value: Any) -> bool:
    """Is it a time above 0, in seconds or as a `timedelta`?"""
    if isinstance(value, timedelta):
        return value > timedelta()
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return good and bool(0 < value <= sys.float_info.max)


DURATION: Final = "a finite number of seconds above 0, a timedelta above 0, or None"


def duration(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    """Accept a time above 0, in seconds or as a `timedelta`; or None."""
    if value is not None and not is_duration(value):
        raise ConfigError(f"{type(instance).__name__}.{attribute.name}", value, DURATION)


def duration_s(value: float | timedelta | None) -> float | None:
    """The time in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


Affinity: TypeAlias = Literal["hint", "strict_queue", "strict_fail_fast"]
File: TypeAlias = str | os.PathLike[str] | None
AFFINITIES: Final = ("hint", "strict_queue", "strict_fail_fast")


@frozen(kw_only=True)
class Startup:
    """How workers are started.

    `timeout`: to a worker's first word. `init_timeout`: for the adapter's import and `initialize`.
    At most `batch_size` workers start at once: the next one waits until one of them is ready,
    and a further batch begins no sooner than `batch_delay` after the one before.
    """

    timeout: float = field(default=10.0, validator=number(above=True))
    init_timeout: float = field(default=300.0, validator=number(above=True))
    batch_size: int = field(default=8, validator=whole(least=1))
    batch_delay: float = field(default=0.75, validator=number())


@frozen(kw_only=True)
class Queue:
    """How long, and with how many others, a call may wait for a worker.

    `max_size`: calls waiting at once; one more is a `PoolSaturatedError`. `timeout`: waited longer,
    `QueueTimeoutError`; the clock does not run while no worker has ever been ready. None: no bound.
    """

    max_size: int | None = field(default=None, validator=whole(least=0, optional=True))
    timeout: float | None = field(default=None, validator=number(above=True, optional=True))

    SERVICE: ClassVar[Queue]


Queue.SERVICE = Queue(max_size=1000, timeout=5.0)


@frozen(kw_only=True)
class Sessions:
    """The sessions of a pool.

    `affinity`: of those that `execute(session=...)` makes on demand. "hint": a call runs on the
    session's worker if that idles, else on any other, and the session moves there. "strict_queue":
    it waits for the session's worker. "strict_fail_fast": it raises SessionBusyError if that worker
    does not idle. `ttl`: they end when nobody has used them for so long, seconds or `timedelta`; None:
    they do not. `max`: how many sessions may be open, those of blocks included.
    """

    affinity: str = field(default="hint", validator=one_of(*AFFINITIES))
    ttl: float | timedelta | None = field(default=3600.0, validator=duration)
    max: int = field(default=10_000, validator=whole(least=1))


@frozen(kw_only=True)
class Stop:
    """The ladder on which a call or a worker is stopped.

    `cancel_grace`: for a cancelled tool to end by itself, its worker kept. `term_grace`: from
    SIGTERM to SIGKILL. `drain_timeout`: for `cleanup` and a worker's orderly exit.
    """

    cancel_grace: float = field(default=1.0, validator=number())
    term_grace: float = field(default=2.0, validator=number())
    drain_timeout: float = field(default=6.0, validator=number())


@frozen(kw_only=True)
class CrashBarrier:
    """What follows on a worker's death.

    A start is fruitless if the worker died before it was ready, or before it finished a call, unless
    it was ended from outside: by SIGTERM, or by SIGKILL and not for want of memory. A worker that was
    ready was ended so if the kernel's count of those that it ended for want of memory has not moved;
    where that count cannot be read, and of a worker that was not ready, it is taken for it if workers of
    the pool were of use within `window`. More than `max_restarts` fruitless starts of one slot within
    `window` and the slot is given up. What ends workers for their hunger outside of the kernel (earlyoom,
    systemd-oomd), or sends the signal from within the call, looks like somebody outside: those workers
    are started again without end. `retry`: "idempotent" sends a call that its worker's death cut short to another worker, up to
    `max_retries` times, if it is declared idempotent; "never" does not. For `taint` after a crash the
    slot is chosen last. `quarantine_after`: a call (a tool with these arguments, as they are encoded: the
    order of names, and a default that is given, tell calls apart) during which so many workers died, none of it answered in between, is not run again until `window` after the last of
    these deaths: `CallQuarantinedError`; None: it is run as often as it comes. Workers that the
    pool ended, for a cancel or a timeout say, do not count.
    """

    max_restarts: int = field(default=5, validator=whole(least=0))
    window: float = field(default=60.0, validator=number(above=True))
    retry: str = field(default="idempotent", validator=one_of("idempotent", "never"))
    max_retries: int = field(default=1, validator=whole(least=0))
    taint: float = field(default=5.0, validator=number())
    quarantine_after: int | None = field(default=3, validator=whole(least=1, optional=True))


def truth(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    """Accept True and False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{type(instance).__name__}.{attribute.name}", value, "True or False")


@frozen(kw_only=True)
class ZeroCopy:
    """Shared memory, for `transport="shm"`.

    `enabled`: False: all values go through the pipes. `threshold`: bytes from which on the data of an
    array, a buffer or a table is shared; what is smaller is copied. `budget_mb`: how much shared memory
    the pool may have, in MiB; half of it for arguments, half for the results of all workers; None: a
    quarter of the memory that this process may use, at most 4096. What finds no room is
    given away, as docs/zero-copy.md says, or goes through the pipes. `copy_results`: arrays and memoryviews in results and in the items of streams can be
    written, on every transport: they are the caller's own, and cost one copy where they came in shared memory.
    """

    enabled: bool = field(default=True, validator=truth)
    threshold: int = field(default=2**20, validator=whole(least=2**16))
    budget_mb: int | None = field(default=None, validator=whole(least=1, optional=True))
    copy_results: bool = field(default=False, validator=truth)


def _as_addresses(given: Any) -> tuple[Address, ...]:
    allowed = "one or more of 'unix:/path' and 'tcp:HOST:PORT', in a sequence"
    if isinstance(given, str | bytes) or not isinstance(given, Sequence) or not given:
        raise ConfigError("connect", given, allowed)
    found: list[Address] = []
    for one in given:
        if not isinstance(one, str):
            raise ConfigError("connect", one, allowed)
        try:
            found.append(parse_address(one))
        except ValueError as error:
            limit = f"a path has at most {UNIX_PATH_BYTES_MAX} bytes"
            raise ConfigError("connect", one, f"{allowed}; {limit}") from error
    if len(set(found)) < len(found):
        raise ConfigError("connect", given, "each address once: a worker has one place in a pool")
    return tuple(found)


def _path(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, str | os.PathLike) and os.fspath(value)):
        raise ConfigError(
            f"{type(instance).__name__}.{attribute.name}", value, "the path of a file, or None"
        )


def _name(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value):
        raise ConfigError(
            f"{type(instance).__name__}.{attribute.name}", value, "the name of a host, or None"
        )


@frozen
class Connect:
    """Workers that somebody else has started, for `open_pool(connect=...)`. A list of addresses alone will do.

    `addresses`: `"unix:/path"` or `"tcp:HOST:PORT"`, one for each worker. `token_file`: calls carry its
    content. `tls_ca`: TCP is TLS, and a worker's certificate has to be signed by one of those in this
    file; needed for all that is not loopback. `tls_cert`, `tls_key`: our own certificate, for workers that
    want one of clients. `tls_name`: whose the workers' certificates are, None: the HOST of their address.
    Files are PEM, the token's is text; they are read anew for each connection.
    """

    addresses: tuple[Address, ...] = field(converter=_as_addresses)
    token_file: File = field(default=None, validator=_path, kw_only=True)
    tls_ca: File = field(default=None, validator=_path, kw_only=True)
    tls_cert: File = field(default=None, validator=_path, kw_only=True)
    tls_key: File = field(default=None, validator=_path, kw_only=True)
    tls_name: str | None = field(default=None, validator=_name, kw_only=True)

    def __attrs_post_init__(self) -> None:
        needs = {"tls_cert": self.tls_ca, "tls_key": self.tls_cert, "tls_name": self.tls_ca}
        for name, needed in needs.items():
            value = getattr(self, name)
            if value is not None and needed is None:
                other = "tls_cert" if name == "tls_key" else "tls_ca"
                raise ConfigError(f"Connect.{name}", value, f"nothing without {other}")
        for address in self.addresses:
            if self.tls_ca is None and not address.is_private:
                raise ConfigError(
                    "connect",
                    str(address),
                    "a Unix socket, tcp:127.0.0.1:PORT (the end of an ssh tunnel, say), or TLS: "
                    "Connect([...], tls_ca='ca.pem')",
                )

    @property
    def has_files(self) -> bool:
        """Is there anything to read before connecting?"""
        return self.token_file is not None or self.tls_ca is not None


DEFAULT_STARTUP: Final = Startup()
DEFAULT_QUEUE: Final = Queue()
DEFAULT_STOP: Final = Stop()
DEFAULT_SESSIONS: Final = Sessions()
DEFAULT_CRASH_BARRIER: Final = CrashBarrier()
DEFAULT_ZERO_COPY: Final = ZeroCopy()
