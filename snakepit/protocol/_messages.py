"""The messages between host and worker, and their encoding as msgpack arrays.

A message is a msgspec Struct; on the wire an array `[tag, field, …]`. Values (arguments,
results, items) are not encoded here: a message carries them as `body`, already msgpack (see
`_values.py`), plus `buffers`, large buffers kept out of the body. Above the channel the
buffers are the real bytes; on a byte stream they are numbers of transfers whose `Part`s came
before (see `_parts.py`). Fields that a newer peer appends are ignored; unknown tags are refused.

Annotations are evaluated here: as text they would be, by msgspec, in three times the time.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from snakepit.errors import ProtocolError

PROTOCOL_VERSION: Final = 1
NIL: Final = Raw(b"\xc0")

Buffer: TypeAlias = bytes | bytearray | memoryview
Buffers: TypeAlias = tuple[Any, ...]


class ToolInfo(Struct, array_like=True, frozen=True):
    """What a worker tells about one of its tools."""

    name: str
    description: str = ""
    parameters: Any = None
    streaming: bool = False
    idempotent: bool = False
    timeout_s: float | None = None
    on_cancel: str = "interrupt"
    cancel_grace_s: float | None = None


class ErrorData(Struct, array_like=True, frozen=True):
    """An exception as data. `args` is an encoded tuple, nil where it could not travel."""

    type: str
    message: str = ""
    builtin: str | None = None
    args: Raw = NIL
    traceback: str = ""
    notes: tuple[str, ...] = ()
    cause: "ErrorData | None" = None


class Start(Struct, array_like=True, tag=1):
    """Host → worker, the answer to Hello: what to load. `body`: the adapter's arguments."""

    worker_id: str
    adapter: str = ""
    body: Raw = NIL
    buffers: Buffers = ()
    tool_backend: str = "asyncio"
    cancel_grace_s: float = 1.0
    import_paths: tuple[str, ...] = ()
    main_path: str | None = None
    main_module: str | None = None


class Call(Struct, array_like=True, tag=2):
    """Host → worker: run a tool. `window` 0 asks for one value, more for a stream of items.

    `session`: the id of the session that the call belongs to. `input_window` above 0: some of the
    arguments are inputs, of each of which so many items may be unread. `trace`: see `_trace_context.py`.
    """

    id: int
    tool: str
    body: Raw = NIL
    buffers: Buffers = ()
    timeout_s: float | None = None
    window: int = 0
    session: str | None = None
    input_window: int = 0
    trace: tuple[str, ...] = ()


class Cancel(Struct, array_like=True, tag=3):
    """Host → worker: end this call; answered by Settled, or by the outcome that crossed it."""

    id: int


class Credit(Struct, array_like=True, tag=4):
    """Host → worker: so many further items of this stream may be sent."""

    id: int
    count: int


class Recall(Struct, array_like=True, tag=5):
    """Host → worker: give back those of these calls that have not begun."""

    ids: tuple[int, ...]


class Shutdown(Struct, array_like=True, tag=6):
    """Host → worker: run `cleanup`, say Goodbye, exit, all within `grace_s`."""

    grace_s: float


class EndSession(Struct, array_like=True, tag=7):
    """Host → worker: once the calls before this are over, forget what is kept for the session."""

    session: str


class HostReply(Struct, array_like=True, tag=8):
    """Host → worker, answers HostCall: the host tool returned."""

    id: int
    body: Raw = NIL
    buffers: Buffers = ()


class HostFailure(Struct, array_like=True, tag=9):
    """Host → worker, answers HostCall: the host tool failed, or was not run.

    `kind`: "tool" (it raised), "not_found", "params", "serialization" (of params or result).
    """

    id: int
    kind: str
    error: ErrorData


class InputItem(Struct, array_like=True, tag=10):
    """Host → worker: the next item of an input of this call."""

    id: int
    input: int
    body: Raw = NIL
    buffers: Buffers = ()


class InputEnd(Struct, array_like=True, tag=11):
    """Host → worker: this input is complete."""

    id: int
    input: int


class Part(Struct, array_like=True, tag=16):
    """Both ways: the next bytes of a transfer; `data` None forgets the transfer."""

    transfer: int
    data: memoryview | None


class Drop(Struct, array_like=True, tag=17):
    """Both ways, with shared memory: these segments of the sender's are no more."""

    segments: tuple[int, ...]


class Hello(Struct, array_like=True, tag=32):
    """Worker → host, its first message."""

    version: int
    pid: int
    about: str = ""


class Ready(Struct, array_like=True, tag=33):
    """Worker → host: initialised; calls may come."""

    tools: tuple[ToolInfo, ...] = ()


class Result(Struct, array_like=True, tag=34):
    """Worker → host: the call returned. `took_us`: after so many microseconds in the worker; None: unknown."""

    id: int
    body: Raw = NIL
    buffers: Buffers = ()
    took_us: int | None = None


class Failure(Struct, array_like=True, tag=35):
    """Worker → host: the call failed. Call 0 is the start itself.

    `kind`: "tool" (it raised), "not_found", "params", "serialization" (of the result).
    """

    id: int
    kind: str
    error: ErrorData


class Item(Struct, array_like=True, tag=36):
    """Worker → host: the next item of a stream."""

    id: int
    body: Raw = NIL
    buffers: Buffers = ()


class End(Struct, array_like=True, tag=37):
    """Worker → host: the stream is complete."""

    id: int


class Settled(Struct, array_like=True, tag=38):
    """Worker → host: the cancelled call has ended; `ran` tells whether the tool had begun."""

    id: int
    ran: bool = True


class Returned(Struct, array_like=True, tag=39):
    """Worker → host, the answer to Recall: these calls were given back, they never began."""

    ids: tuple[int, ...]


class Goodbye(Struct, array_like=True, tag=40):
    """Worker → host, its last message: `cleanup` has run."""


class Progress(Struct, array_like=True, tag=41):
    """Worker → host: how far the running call is. Not answered; the next one replaces it."""

    id: int
    done: int | float
    total: int | float | None = None
    message: str | None = None


class HostCall(Struct, array_like=True, tag=42):
    """Worker → host: run a host tool for this call. `id` is the worker's number for it."""

    id: int
    call: int
    tool: str
    body: Raw = NIL
    buffers: Buffers = ()


class HostCancel(Struct, array_like=True, tag=43):
    """Worker → host: nobody waits for this host call any more; not answered."""

    id: int
    call: int


class InputCredit(Struct, array_like=True, tag=44):
    """Worker → host: so many further items of this input may be sent."""

    id: int
    input: int
    count: int


class InputStop(Struct, array_like=True, tag=45):
    """Worker → host: no more of this input is wanted, though the call goes on."""

    id: int
    input: int


ToWorker: TypeAlias = (
    Start
    | Call
    | Cancel
    | Credit
    | Recall
    | Shutdown
    | EndSession
    | HostReply
    | HostFailure
    | InputItem
    | InputEnd
    | Part
    | Drop
)
ToHost: TypeAlias = (
    Hello
    | Ready
    | Result
    | Failure
    | Item
    | End
    | Settled
    | Returned
    | Goodbye
    | Progress
    | HostCall
    | HostCancel
    | InputCredit
    | InputStop
    | Part
    | Drop
)
Message: TypeAlias = ToWorker | ToHost

encode_message: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode_to_worker: Callable[[bytes], ToWorker] = msgspec.msgpack.Decoder(ToWorker).decode
_decode_to_host: Callable[[bytes], ToHost] = msgspec.msgpack.Decoder(ToHost).decode


def decode_to_host(payload: bytes) -> ToHost:
    """A frame's payload as a message from a worker. Raises ProtocolError."""
    try:
        return _decode_to_host(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a message of a worker: {error}") from error


def decode_to_worker(payload: bytes) -> ToWorker:
    """A frame's payload as a message from the host. Raises ProtocolError."""
    try:
        return _decode_to_worker(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a message of a host: {error}") from error
