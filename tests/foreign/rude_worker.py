"""A foreign worker that says what it is told to, at the start or in answer to a call.

The argument says how it starts. The tools `say` and `say_stream` send each of `messages`: bytes as
they are, lists as messages, in which "ID" stands for the call's number and bytes are a body.
"""

import math
import os
import sys
import time

import worker_from_the_spec as spec

STARTS: dict = {
    "well": [],
    "as a stranger": [[33]],
    "with another version": [[32, 2, 1]],
    "with noise": [b"Hello, world!\n"],
    "too soon": [b"\0\0\0\x04\x93\x20\x01\x01\0\0\0\x02\x91\x21"],  # Hello, Ready
    "unready": [[32, 1, 1], [34, 1, 1]],
    "in failure": [
        [32, 1, 1],
        [35, 0, "start", ["some.TypeError", "no model", None, None, "at 1"]],
    ],
    "with a timeout of NaN": [[32, 1, 1], [33, [["x", "", None, False, False, math.nan]]]],
    "with a negative grace": [
        [32, 1, 1],
        [33, [["x", "", None, False, False, None, "interrupt", -1.0]]],
    ],
    "with a number for a schema": [[32, 1, 1], [33, [["x", "", 5]]]],
    "silently": [],
    "dead": [],
}


class Rude(spec.Worker):
    def outcome(self, call: spec.Call) -> tuple:
        if call.tool not in ("say", "say_stream"):
            return super().outcome(call)
        *early, last = spec.understand(call.body, call.buffers, call.open_input)["messages"]
        for message in early:
            self.say(message, call.id)
        if last == "close":
            os.close(self.wire.stdout)
            time.sleep(3600)
        return tuple(self.filled(last, call.id))

    def say(self, message, number: int) -> None:
        if message[0] == "until":
            while not os.path.exists(message[1]):
                time.sleep(0.01)
        elif isinstance(message, bytes):
            os.write(self.wire.stdout, message)
        else:
            self.wire.send(*self.filled(message, number))

    def filled(self, message: list, number: int) -> list:
        fields = [number if field == "ID" else field for field in message]
        if message[0] in (34, 36):
            body = fields[2]
            fields[2] = spec.Packed(body) if isinstance(body, bytes) else spec.pack(body)
        return fields


if __name__ == "__main__":
    how = sys.argv[1]
    rude = Rude(spec.Wire())
    for message in STARTS[how]:
        rude.say(message, 0)
        if message[0] == 32:
            rude.wire.stdin.read1(2**16)  # Start
    if how in ("silently", "with noise"):
        time.sleep(3600)
    if how == "well":
        spec.TOOLS["say"] = (None, "", False)
        spec.TOOLS["say_stream"] = (None, "", True)
        rude.serve()
