"""The outbox: whatever is put, written in pieces and withdrawn, the stream carries whole messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Raw

from snakepit.protocol import (
    NIL,
    PART_BYTES_MAX,
    Call,
    Cancel,
    Credit,
    HostReply,
    Outbox,
    Recall,
    Unpacker,
    decode_to_worker,
    encode_value,
)

LARGE = PART_BYTES_MAX + 1


def body(size: int) -> Raw:
    return encode_value(bytes(size), buffer_threshold=2**40)[0]


def content(message: Any) -> Any:
    """A message as something that can be compared, whatever holds its buffers."""
    if isinstance(message, Call):
        return (
            message.id,
            message.tool,
            bytes(message.body),
            tuple(bytes(buffer) for buffer in message.buffers),
        )
    return message


def drain(outbox: Outbox, *, piece_bytes: int = 2**30) -> bytes:
    """Write all of it, in pieces of at most so many bytes."""
    stream = bytearray()
    while (data := outbox.next_bytes()) is not None:
        count = min(len(data), piece_bytes)
        stream += bytes(data[:count])
        outbox.wrote(count)
    return bytes(stream)


def unpacked(stream: bytes) -> list[Any]:
    unpacker = Unpacker(decode_to_worker)
    messages = unpacker.feed(stream)
    assert not unpacker.mid_message
    return messages


def large(number: int, *sizes: int) -> Call:
    return Call(number, "large", NIL, tuple(bytes([number]) * size for size in sizes or (LARGE,)))


# -- any life of an outbox ------------------------------------------------------------------------


class OutboxMachine(RuleBasedStateMachine):
    """A pipe that takes what it likes, senders that change their minds."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.unpacker = Unpacker(decode_to_worker)
        self.put: list[Any] = []
        self.told: list[int] = []  # for each that was put: calls of its `on_sent`
        # Indices of what was put; each is in one of these.
        self.open: list[int] = []
        self.came: list[int] = []
        self.withdrawn: list[int] = []
        self.cleared: list[int] = []

    def queue(self, message: Any) -> None:
        index = len(self.put)
        self.put.append(message)
        self.told.append(0)
        self.open.append(index)

        def on_sent() -> None:
            self.told[index] += 1

        self.outbox.put(message, on_sent)

    @rule(number=st.integers(1, 3), kind=st.integers(0, 3))
    def put_small(self, number: int, kind: int) -> None:
        count = len(self.put)
        messages = [
            Call(number, f"small {count}", body(kind)),
            Cancel(number),
            Credit(number, count),
            Recall((number, count)),
        ]
        self.queue(messages[kind])

    @rule(
        number=st.integers(1, 3),
        sizes=st.lists(st.sampled_from([0, 5, 70_000, LARGE, 2 * LARGE]), max_size=3),
        body_bytes=st.sampled_from([0, 5, LARGE]),
    )
    def put_large(self, number: int, sizes: list[int], body_bytes: int) -> None:
        count = len(self.put)
        buffers = tuple(bytes([count % 256]) * size for size in sizes)
        self.queue(Call(number, f"large {count}", body(body_bytes), buffers))

    @rule(pick=st.integers(0))
    @precondition(lambda self: self.open)
    def withdraw(self, pick: int) -> None:
        """It may be too late: its last frame has begun."""
        index = self.open[pick % len(self.open)]
        if self.outbox.withdraw(self.put[index]):
            self.open.remove(index)
            self.withdrawn.append(index)

    @rule()
    def withdraw_what_is_over(self) -> None:
        for index in [*self.came, *self.withdrawn, *self.cleared]:
            assert not self.outbox.withdraw(self.put[index])

    @rule(writes=st.lists(st.sampled_from([1, 17, 65_536, 2**30]), min_size=1, max_size=8))
    def write(self, writes: list[int]) -> None:
        for count in writes:
            data = self.outbox.next_bytes()
            if data is None:
                assert not self.outbox
                return
            assert len(data) > 0
            assert self.outbox.next_bytes() is data  # until it is written
            written = min(count, len(data))
            self.receive(bytes(data[:written]))
            self.outbox.wrote(written)

    @rule()
    @precondition(lambda self: len(self.open) > 4)
    def write_everything(self) -> None:
        self.receive(drain(self.outbox, piece_bytes=700_000))
        assert not self.outbox
        assert not self.unpacker.mid_message
        assert self.open == []

    @rule()
    @precondition(lambda self: len(self.open) > 2)
    def clear(self) -> None:
        """The other side is gone, in the middle of a frame or not."""
        self.outbox.clear()
        assert not self.outbox
        assert self.outbox.next_bytes() is None
        self.cleared += self.open
        self.open.clear()
        self.unpacker = Unpacker(decode_to_worker)

    def receive(self, data: bytes) -> None:
        for message in self.unpacker.feed(data):
            number = getattr(message, "id", None)
            candidates = [
                index
                for index in self.open
                if number is None or getattr(self.put[index], "id", None) == number
            ]
            if number is None:  # of no call: in no order with any
                wanted = content(message)
                candidates = [index for index in candidates if self.put[index] == wanted]
            index = candidates[0]  # the first of its call
            assert content(message) == content(self.put[index])
            self.open.remove(index)
            self.came.append(index)

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        placed = [*self.open, *self.came, *self.withdrawn, *self.cleared]
        assert sorted(placed) == list(range(len(self.put)))

    @invariant()
    def who_waits_is_told_once_when_it_is_over_and_not_before(self) -> None:
        over = {*self.came, *self.cleared}
        assert self.told == [int(index in over) for index in range(len(self.put))]

    def teardown(self) -> None:
        self.write_everything()


@pytest.mark.unmeasured
def test_the_stream_carries_exactly_what_was_put_and_not_withdrawn() -> None:
    """Each message whole and unchanged, those of a call in order, its sender told once."""
    run_state_machine_as_test(
        OutboxMachine, settings=settings(max_examples=100, stateful_step_count=25, deadline=None)
    )


# -- a sentence each ------------------------------------------------------------------------------


def test_a_small_message_goes_between_the_frames_of_a_large_one() -> None:
    outbox = Outbox()
    outbox.put(large(1, 3 * LARGE))
    head = outbox.next_bytes()
    assert head is not None
    outbox.put(Cancel(2))
    stream = drain(outbox)
    assert [message.id for message in unpacked(stream)] == [2, 1]
    unpacker = Unpacker(decode_to_worker)
    assert unpacker.feed(stream[: 2 * LARGE]) == [Cancel(2)]


def test_a_begun_frame_is_finished_before_a_small_message_goes() -> None:
    outbox = Outbox()
    outbox.put(large(1))
    head = outbox.next_bytes()
    assert head is not None
    outbox.wrote(3)
    outbox.put(Cancel(2))
    assert bytes(outbox.next_bytes() or b"") == bytes(head)[3:]
    stream = bytes(head)[:3] + drain(outbox)
    assert [message.id for message in unpacked(stream)] == [2, 1]


def test_a_small_message_of_the_same_call_waits_for_the_large_one() -> None:
    outbox = Outbox()
    outbox.put(large(1))
    for message in [Cancel(1), Cancel(2), Credit(1, 5)]:
        outbox.put(message)
    came = unpacked(drain(outbox))
    assert [(type(message), message.id) for message in came] == [
        (Cancel, 2),
        (Call, 1),
        (Cancel, 1),
        (Credit, 1),
    ]


def test_messages_without_a_call_overtake_large_ones() -> None:
    outbox = Outbox()
    outbox.put(large(1))
    outbox.put(Recall((1,)))
    assert [type(message) for message in unpacked(drain(outbox))] == [Recall, Call]


def test_the_answer_to_a_host_call_has_the_number_of_no_call() -> None:
    """Its number is the worker's, and says nothing of the call that the host knows by the same."""
    outbox = Outbox()
    outbox.put(HostReply(1, body(LARGE)))
    outbox.put(Cancel(1))
    outbox.put(large(2))
    outbox.put(HostReply(2))
    assert [type(message) for message in unpacked(drain(outbox))] == [
        Cancel,
        HostReply,
        HostReply,
        Call,
    ]


def test_a_message_withdrawn_half_way_leaves_nothing_behind_on_the_other_side() -> None:
    """The begun frame is finished, then its transfers are forgotten, then the next one goes."""
    outbox = Outbox()
    first = large(1, 5, 3 * LARGE)
    outbox.put(first)
    unpacker = Unpacker(decode_to_worker)
    for _ in range(4):  # two heads and two pieces of data: into the second transfer
        data = outbox.next_bytes()
        assert data is not None
        assert unpacker.feed(bytes(data)) == []
        outbox.wrote(len(data))
    data = outbox.next_bytes()
    assert data is not None
    assert unpacker.feed(bytes(data)[:1]) == []
    outbox.wrote(1)
    assert outbox.withdraw(first)
    outbox.put(Cancel(9))
    assert unpacker.feed(drain(outbox)) == [Cancel(9)]
    assert not unpacker.mid_message


def test_a_message_whose_last_frame_has_begun_can_no_longer_be_withdrawn() -> None:
    outbox, told = Outbox(), []
    message = Cancel(1)
    outbox.put(message, lambda: told.append(True))
    data = outbox.next_bytes()
    assert data is not None
    assert not outbox.withdraw(message)
    assert told == []
    assert unpacked(drain(outbox)) == [message]
    assert told == [True]
    assert not outbox.withdraw(message)


def test_a_message_that_was_withdrawn_in_time_is_never_seen() -> None:
    outbox = Outbox()
    messages = [Cancel(1), large(2), Cancel(3)]
    for message in messages:
        outbox.put(message)
    assert [outbox.withdraw(message) for message in messages] == [True] * 3
    assert not outbox.withdraw(Cancel(1))
    assert drain(outbox) == b""


def test_a_clear_outbox_serves_again() -> None:
    outbox, told = Outbox(), []
    outbox.put(large(1), lambda: told.append(1))
    outbox.next_bytes()
    outbox.put(Cancel(2), lambda: told.append(2))
    outbox.put(Cancel(3))
    outbox.clear()
    assert sorted(told) == [1, 2]
    outbox.put(Cancel(4))
    assert unpacked(drain(outbox)) == [Cancel(4)]


def test_who_waits_for_a_half_written_last_frame_is_told_when_the_link_ends() -> None:
    outbox, told = Outbox(), []
    outbox.put(Cancel(1), lambda: told.append(1))
    outbox.next_bytes()
    outbox.wrote(1)
    outbox.clear()
    assert told == [1]
