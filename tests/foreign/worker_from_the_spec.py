"""A worker written from docs/protocol.md alone: standard library only, nothing of snakepit.

The main thread runs the calls, one at a time; a second one reads, so that Cancel, Recall, Credit and
the items of inputs are heard while a tool runs.
"""

import functools
import inspect
import os
import queue
import struct
import sys
import threading
import time
from collections import deque
from typing import NamedTuple

FRAME_MAX, PART_MAX = 4 * 2**20, 2**20


class Ext(NamedTuple):
    code: int
    payload: bytes


class Packed(bytes):
    """msgpack already: goes into a message as it is."""


BODY_IN_TRANSFER = Packed(b"\xc7\x00\x7f")


class NotUnderstoodError(Exception):
    """A value that this worker cannot read, or cannot send."""


def pack(value) -> Packed:
    """The value as msgpack, which allows any width: always the widest."""
    match value:
        case Packed():
            return value
        case None | False | True:
            data = {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int():
            data = struct.pack(">Bq", 0xD3, value) if value < 0 else struct.pack(">BQ", 0xCF, value)
        case float():
            data = struct.pack(">Bd", 0xCB, value)
        case str():
            data = struct.pack(">BI", 0xDB, len(text := value.encode())) + text
        case bytes() | bytearray():
            data = struct.pack(">BI", 0xC6, len(value)) + value
        case list() | tuple():
            data = struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))
        case dict():
            members = b"".join(pack(part) for pair in value.items() for part in pair)
            data = struct.pack(">BI", 0xDF, len(value)) + members
        case _:
            raise NotUnderstoodError(f"a {type(value).__name__} cannot travel")
    return Packed(data)


CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
NUMBERS = {0xCA + i: f">{letter}" for i, letter in enumerate("fdBHIQbhiq")}
SIZED = {  # code: kind, bytes of the size
    0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2),
    0xC9: ("ext", 4), 0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xDC: ("array", 2),
    0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip


def unpack(data, at: int = 0):
    """One value and where it ends; extensions stay `Ext`, to be understood later."""
    code, at = data[at], at + 1
    if code < 0x80 or code >= 0xE0:
        return (code if code < 0x80 else code - 256), at
    if code in CONSTANTS:
        return CONSTANTS[code], at
    if code in NUMBERS:
        return struct.unpack_from(NUMBERS[code], data, at)[0], at + struct.calcsize(NUMBERS[code])
    if code < 0xC0:
        kind = ("map", "array", "str", "str")[(code >> 4) - 8]
        size = code & (31 if code & 32 else 15)
    elif code in SIZED:
        kind, width = SIZED[code]
        size, at = int.from_bytes(data[at : at + width], "big"), at + width
    else:
        kind, size = "ext", 1 << code - 0xD4
    if kind in ("array", "map"):
        members = []
        for _ in range(size * (2 if kind == "map" else 1)):
            member, at = unpack(data, at)
            members.append(member)
        if kind == "map":
            return dict(zip(members[::2], members[1::2], strict=True)), at
        return members, at
    if kind == "ext":
        return Ext(data[at], bytes(data[at + 1 : at + 1 + size])), at + 1 + size
    raw = bytes(data[at : at + size])
    return (raw.decode() if kind == "str" else raw), at + size


def understand(value, buffers: list, open_input=None):
    """The value with its extensions read: 3 and 32 are bytes, 4 to 6 lists."""
    match value:
        case Ext(18, payload) if open_input:
            return open_input(unpack(payload)[0])
        case Ext(3 | 4 | 5 | 6 | 32, payload):
            content = understand(unpack(payload)[0], buffers)
            return bytes(buffers[content]) if isinstance(content, int) else content
        case Ext():
            raise NotUnderstoodError(f"this worker does not know ext {value.code}")
        case list():
            return [understand(member, buffers) for member in value]
        case dict():
            return {key: understand(one, buffers, open_input) for key, one in value.items()}
    return value


class Wire:
    def __init__(self) -> None:
        self.stdin, self.stdout = os.fdopen(os.dup(0), "rb"), os.dup(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self.transfers: dict[int, bytearray] = {}
        self.transfer, self.lock = 0, threading.Lock()
        self.asked, self.replies = 0, {}

    def receive(self):
        """The next message other than Part; None at the end of the stream."""
        while prefix := self.stdin.read(4):
            [size] = struct.unpack(">I", prefix)
            if size > FRAME_MAX:
                raise ValueError(f"a frame claims {size} bytes")
            message, end = unpack(payload := self.stdin.read(size))
            if end != len(payload):
                raise ValueError("more or less than one value in a frame")
            if message[0] != 16:
                return message
            if message[2] is None:
                self.transfers.pop(message[1], None)
            else:
                self.transfers.setdefault(message[1], bytearray()).extend(message[2])
        return None

    def send(self, tag: int, *fields) -> None:
        """Write a message; the body of a value goes in a transfer if it is large."""
        at = {34: 1, 36: 1, 42: 3}.get(tag)
        if at is not None and len(body := fields[at]) > PART_MAX:
            self.transfer += 1
            for start in range(0, len(body), PART_MAX):
                self.send(16, self.transfer, bytes(body[start : start + PART_MAX]))
            fields = (*fields[:at], BODY_IN_TRANSFER, [self.transfer])
        payload = pack([tag, *fields])
        frame = memoryview(struct.pack(">I", len(payload)) + payload)
        with self.lock:
            while frame:
                frame = frame[os.write(self.stdout, frame) :]

    def complete(self, body, numbers: list) -> tuple:
        """A body and its buffers, which have come before."""
        buffers = [self.transfers.pop(number) for number in numbers]
        if isinstance(body, Ext) and body.code == 127:
            body = unpack(buffers.pop())[0]
        return body, buffers

    def ask(self, call: "Call", tool: str, params: dict):
        """A host call: its value, or raises what the host says."""
        self.asked += 1
        call.reply = self.replies[self.asked] = queue.SimpleQueue()
        self.send(42, self.asked, call.id, tool, pack(params))
        answer = None if call.cancelled.is_set() else call.reply.get()
        self.replies.pop(self.asked, None)
        if answer is None:
            raise InterruptedError("cancelled")
        tag, *fields = answer
        if tag == 9:
            kind, (name, message, *_) = fields
            raise ValueError(f"{kind}: {name}: {message}")
        return understand(*fields)


class Call:
    def __init__(self, wire: Wire, sessions: dict, fields: list) -> None:
        defaults = [0, "", None, [], None, 0, None, 0]
        self.id, self.tool, body, numbers, _timeout, self.window, session, self.input_window = (
            fields + defaults[len(fields) :]
        )[:8]
        self.told = [] if session is None else sessions.setdefault(session, [])
        self.body, self.buffers = wire.complete(body, numbers)
        self.ask, self.reply = functools.partial(wire.ask, self), queue.SimpleQueue()
        self.tell = functools.partial(wire.send, 41, self.id)
        self.wire, self.inputs = wire, {}
        self.credit, self.cancelled = threading.Semaphore(self.window), threading.Event()

    def open_input(self, number: int):
        """An argument whose items come one by one: nothing is asked for before the first `next`."""
        arrived = self.inputs[number] = queue.SimpleQueue()
        credit = self.input_window
        while not self.cancelled.is_set():
            self.wire.send(44, self.id, number, credit)
            item, credit = arrived.get(), 1
            if item is None:  # the end, or the call is cancelled
                break
            yield understand(*item)


def first(_call: Call, items, count: int) -> list:
    return [item for _, item in zip(range(count), items, strict=False)]


def count(_call: Call, until: int):
    try:
        yield from range(until)
    finally:
        print("counted enough")  # goes to stderr, into the host's log


def fail(_call: Call, message: str) -> None:
    raise ValueError(message)


def work(call: Call, steps: int) -> int:
    for step in range(1, steps + 1):
        call.tell(step, steps, f"step {step}")
    return steps


TOOLS: dict = {  # name: function, description, does it stream
    "echo": (lambda _call, value: value, "Give the value back", False),
    "add": (lambda _call, a, b: a + b, "a + b", False),
    "big": (lambda _call, size, text="x": text * size, "A long text", False),
    "pid": (lambda _call: os.getpid(), "The id of this process", False),
    "count": (count, "The numbers from 0", True),
    "total": (lambda _call, numbers: sum(numbers), "The sum of an input", False),
    "first": (first, "The first items of an input", False),
    "doubled": (lambda _call, numbers: (2 * n for n in numbers), "Twice each", True),
    "work": (work, "Tell each step", False),
    "ask": (lambda call, name, params: call.ask(name, params), "Ask the host", False),
    "remember": (lambda call, it: call.told.append(it) or call.told, "All it was told", False),
    "fail": (fail, "Raise ValueError", False),
    "sleep": (lambda call, seconds: call.cancelled.wait(seconds), "Until cancelled", False),
    "spin": (lambda _call, seconds: time.sleep(seconds), "Deaf to Cancel", False),
    "crash": (lambda _call, code: os._exit(code), "Exit at once", False),
}


class Worker:
    def __init__(self, wire: Wire) -> None:
        self.wire, self.changed = wire, threading.Condition()
        self.waiting: deque[Call] = deque()
        self.running: Call | None = None
        self.stopping, self.sessions = False, {}

    def serve(self) -> None:
        self.wire.send(32, 1, os.getpid(), "from the spec")
        start = self.wire.receive()
        if start is None or start[0] != 1:
            sys.exit("the host did not say Start")
        schema = {"type": "object"}
        self.wire.send(33, [[name, about, schema, s] for name, (_, about, s) in TOOLS.items()])
        threading.Thread(target=self.read, daemon=True).start()
        while True:
            with self.changed:
                self.running = None
                self.changed.wait_for(lambda: self.waiting or self.stopping)
                if not self.waiting:
                    break
                call = self.running = self.waiting.popleft()
            answer = self.outcome(call)
            # Looked at once, so that there is one answer however Cancel and outcome cross.
            self.wire.send(*((38, call.id) if call.cancelled.is_set() else answer))
        print("cleaned up")
        self.wire.send(40)

    def outcome(self, call: Call) -> tuple:
        """Run a call; the message that answers it."""
        kind = "serialization"
        try:
            arguments = understand(call.body, call.buffers, call.input_window and call.open_input)
            kind = "not_found"
            function, _, streams = TOOLS[call.tool]
            kind = "params"
            inspect.signature(function).bind(call, **arguments)
            if streams != (call.window > 0):
                raise TypeError("a stream is not called like a plain tool, nor the reverse")
            kind = "tool"
            result = function(call, **arguments)
            if not streams:
                return 34, call.id, pack(result)
            for item in result:
                call.credit.acquire()
                if call.cancelled.is_set():
                    result.close()
                    break
                self.wire.send(36, call.id, pack(item))
            return 37, call.id
        except Exception as error:
            name = type(error).__name__
            kind = "serialization" if isinstance(error, NotUnderstoodError) else kind
            return 35, call.id, kind, [f"builtins.{name}", str(error), name]

    def read(self) -> None:
        """The reading thread: whatever ends it ends the process, save Shutdown."""
        code = 0
        try:
            while not self.stopping and (message := self.wire.receive()) is not None:
                with self.changed:
                    self.handle(*message)
                    self.changed.notify()
        except Exception as error:
            print(f"the host broke the protocol: {error!r}")
            code = 1
        if not self.stopping:
            os._exit(code)

    def handle(self, tag: int, *fields) -> None:
        known = [call for call in (self.running, *self.waiting) if call and call.id == fields[0]]
        if tag == 2:
            self.waiting.append(Call(self.wire, self.sessions, list(fields)))
        elif tag == 3 and self.take_back(fields[:1]):
            self.wire.send(38, fields[0], False)
        elif tag == 3 and known:
            known[0].cancelled.set()
            known[0].credit.release()
            known[0].reply.put(None)
            for arrived in list(known[0].inputs.values()):
                arrived.put(None)
        elif tag == 4 and known:
            known[0].credit.release(fields[1])
        elif tag == 5:
            self.wire.send(39, self.take_back(fields[0]))
        elif tag == 6:
            self.stopping = True
        elif tag in (8, 9):  # whether or not anybody waits for it any more
            number, first, second = (*fields, None, [])[:3]
            rest = self.wire.complete(first, second) if tag == 8 else (first, second)
            self.wire.replies.get(number, queue.SimpleQueue()).put((tag, *rest))
        elif tag == 7:  # calls that wait have theirs already
            self.sessions.pop(fields[0], None)
        elif tag in (10, 11):
            item = self.wire.complete(*fields[2:]) if tag == 10 else None
            if known and fields[1] in known[0].inputs:
                known[0].inputs[fields[1]].put(item)
        elif tag not in (3, 4):
            raise ValueError(f"unknown message {tag}")

    def take_back(self, numbers) -> list[int]:
        back = [call for call in self.waiting if call.id in numbers]
        for call in back:
            self.waiting.remove(call)
        return [call.id for call in back]


if __name__ == "__main__":
    Worker(Wire()).serve()
