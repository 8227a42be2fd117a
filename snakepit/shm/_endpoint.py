"""One link's end of shared memory: what it has shown and lent, and what it was shown and lent.

Both ends are alike. A message's large buffers are replaced by references before it is packed, and
references by views when it has been unpacked; between the two it is a small message like any other.
A reference is a list `[segment, offset, size, slot, generation]`: a segment of the sender's by the
number under which it was shown, or one of the receiver's own by that number, negative; and the slot
of the sender's ledger in which the receiver gives the message's lease back, with its generation, or
twice 0 in an echo of a worker's, and for a segment that was given for good.
What a peer says is checked: it can break its own link, and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from snakepit.errors import ProtocolError
from snakepit.protocol import CARRIERS, Buffer, Drop, Loose, Missing
from snakepit.shm import _fd_socket as kinds
from snakepit.shm._counts import Counts, store_counts
from snakepit.shm._fd_socket import FdSocket, NoDescriptorError
from snakepit.shm._gifts import Gift, make_gift
from snakepit.shm._heap import IDLE_TRIM_S, Heap
from snakepit.shm._holds import Block, Hold
from snakepit.shm._leases import (
    GENERATION_MAX,
    SLOTS,
    Echoes,
    Lease,
    Leases,
    Receipt,
)
from snakepit.shm._memory import address_of, view_of
from snakepit.shm._segments import Segment
from snakepit.shm._shown import GIFTS_FROM, Shown

REFERENCE_FIELDS: Final = 5

Key: TypeAlias = tuple[int, int]  # address and size of a buffer
Loan: TypeAlias = Lease | Gift | Echoes  # what a message takes along; the last is one more echo


class Endpoint:
    """One end of one link. `tell` sends a message to the peer; `bury` gets what is to be unmapped.

    Unmapping takes some 20 ms for each GiB, so a loop has a thread do it.
    """

    def __init__(
        self,
        heap: Heap,
        fds: FdSocket,
        ledgers: tuple[memoryview, memoryview],
        counts: memoryview,
    ) -> None:
        self.heap = heap
        self._counts = counts
        self.threshold: int = 0
        self.tell: Callable[[Drop], object] = lambda _: None
        self.bury: Callable[[Segment], object] = lambda _: None
        self._fds = fds
        lent, self._borrowed = ledgers
        self.echoes: Echoes = Echoes()
        self.leases: Leases = Leases(lent, self.echoes)
        self._counts_echoes = False
        self._shown: dict[int, Segment] = {}  # to the peer, by the number it was told
        self.shown: Shown = Shown(self, heap, fds)  # by the peer, to us
        self._gifts = 0
        self._closed = False
        self._to_tell: deque[int] = deque()
        with heap.lock:
            heap.endpoints.add(self)

    @property
    def has_borrowed(self) -> bool:
        """Has the peer shown segments, which may idle?"""
        return bool(self.shown.segments)

    @property
    def lent_bytes(self) -> int:
        """How much the peer may look at."""
        with self.heap.lock:
            return self.leases.nbytes

    @property
    def peer_counts(self) -> Counts:
        """What a worker has told of its own arena."""
        return tuple(self._counts)

    @property
    def is_up(self) -> bool:
        """Does the peer understand references? A foreign worker never says so."""
        if not self.shown.has_greeted:
            try:
                self.shown.read_records()
            except ProtocolError:
                return False  # whoever sends must not pay; what it says of segments will be refused
        return self.shown.has_greeted and not self._closed

    # -- sending -------------------------------------------------------------------------------

    def strangers(self, message: Any) -> dict[Key, Buffer | Loose]:
        """The large buffers of the message that lie in no segment, each once."""
        found: dict[Key, Buffer | Loose] = {}
        for buffer in message.buffers:
            size = len(buffer)
            if size >= self.threshold:
                key = key_of(buffer)
                if key[0] < 0 or self.heap.find(*key) is None:
                    found[key] = buffer
        return found

    def bind(self, message: Any, blocks: dict[Key, Block | Gift]) -> tuple[Any, list[Loan]]:
        """The message with references to `blocks` and to what lies in segments, lent; and the loans.

        What cannot be shown or lent now stays in it, in a row, and travels with it. Raises what keeps that
        from being written, as MemoryError; then nothing is lent.
        """
        bound, loans = self._refer(message, blocks)
        try:
            for buffer in bound.buffers:
                if isinstance(buffer, Loose):
                    buffer.in_a_row()
        except BaseException:
            self.take_back(loans)
            self.speak()
            raise
        return bound, loans

    def _refer(self, message: Any, blocks: dict[Key, Block | Gift]) -> tuple[Any, list[Loan]]:
        places: dict[bool, list[tuple[int, int, int, int]]] = {False: [], True: []}  # is an echo
        kept: dict[bool, list[Any]] = {False: [], True: []}
        loans: list[Loan] = []
        buffers = list(message.buffers)
        with self.heap.lock:
            for index, buffer in enumerate(message.buffers):
                size = len(buffer)
                if size < self.threshold:
                    continue
                block = blocks.get(key := key_of(buffer))
                if isinstance(block, Gift):
                    if self._give(block, loans):
                        buffers[index] = [block.number, 0, size, 0, 0]
                    continue
                place = self._place(key, block)
                if place is not None:
                    segment, offset = place
                    number = self._number_of(segment)
                    if number:
                        places[number < 0].append((index, number, offset, size))
                        kept[number < 0].append(buffer if block is None else block)
            for is_echo in filter(places.get, places):
                slot = generation = 0
                if is_echo and self._counts_echoes:
                    self.echoes.sent += 1
                    loans.append(self.echoes)
                elif (lease := self._lend(kept[is_echo], places[is_echo])) is not None:
                    loans.append(lease)
                    slot, generation = lease.slot, lease.generation
                else:
                    continue
                self.heap.references += len(places[is_echo])
                for index, *where in places[is_echo]:
                    buffers[index] = [*where, slot, generation]
        return with_buffers(message, tuple(buffers)), loans

    def take_back(self, loans: list[Loan]) -> None:
        """The message that they went with is not sent after all; `speak` should follow."""
        with self.heap.lock:
            for loan in loans:
                if isinstance(loan, Gift):
                    self._to_tell.append(loan.number)
                elif isinstance(loan, Echoes):
                    loan.sent -= 1
                else:
                    self.leases.cancel(loan)

    def place(self, message: Any) -> Any:
        """`bind`, with all that has to be copied first; on a thread that may take its time.

        Raises what keeps a value from being written, as MemoryError; then nothing is lent.
        """
        blocks: dict[Key, Block | Gift] = {}
        for key, buffer in self.strangers(message).items():
            block = self.heap.take(key[1])
            gift = None if block is not None else make_gift(buffer)
            if block is not None:
                self.fill(block, buffer)
                blocks[key] = block
            elif gift is not None:
                blocks[key] = gift
        self.speak()
        bound, _ = self.bind(message, blocks)
        self._tell_counts()
        return bound

    def fill(self, block: Block, source: Buffer | Loose) -> None:
        """Copy the bytes into the block, and count them."""
        block.fill(source)
        self.heap.copies += 1
        self.heap.copied_bytes += len(source)

    def forget(self, segments: list[Segment]) -> None:
        """These are gone, the peer need not keep them: `speak` tells. Nothing of them is lent."""
        with self.heap.lock:
            for segment in segments:
                if self._shown.pop(segment.number, None) is not None:
                    self._to_tell.append(segment.number)

    @property
    def has_news(self) -> bool:
        """Are there segments that are gone, of which the peer was not told?"""
        return bool(self._to_tell)

    def speak(self) -> None:
        """Tell the peer of segments that are gone."""
        numbers: list[int] = []
        with suppress(IndexError):  # another thread may be at it as well
            while self._to_tell:
                numbers.append(self._to_tell.popleft())
        if numbers and not self._closed:
            self.tell(Drop(tuple(numbers)))

    def _tell_counts(self) -> None:
        if self._counts_echoes:  # the host asks itself
            store_counts(self._counts, self.heap)

    def _lend(self, kept: list[Any], places: list[tuple[int, int, int, int]]) -> Lease | None:
        return self.leases.grant(kept, sum(size for _, _, _, size in places))

    def _place(self, key: Key, block: Block | None) -> tuple[Segment, int] | None:
        if block is not None:
            return block.segment, block.offset
        segment = None if key[0] < 0 else self.heap.find(*key)
        if segment is None:
            return None
        return segment, key[0] - segment.mapping.address

    def _give(self, gift: Gift, loans: list[Loan]) -> bool:
        """Hand it over, if that was not done before in this message; False: it cannot be now."""
        if gift.fd >= 0:
            number = GIFTS_FROM + self._gifts
            if not self._fds.send(kinds.GIVE, number, gift.size, gift.fd):
                return False
            gift.number = number
            gift.close()
            self._gifts += 1
            self.heap.donations += 1
            loans.append(gift)
        return gift.number > 0

    def _number_of(self, segment: Segment) -> int:
        """What to call the segment before the peer, which is shown it if need be; 0: it cannot be."""
        if segment.owner is self:
            return -segment.owners_number
        number = segment.number
        if number not in self._shown:
            if segment.fd < 0 or not self._fds.send(kinds.SHOW, number, segment.size, segment.fd):
                return 0
            self._shown[number] = segment
        return number

    # -- receiving -----------------------------------------------------------------------------

    def resolve(self, reference: Any, receipts: dict[Key, Receipt]) -> memoryview | Missing:
        """The bytes that a reference names, as a read-only view; one receipt for each lease.

        What a host has no descriptor for is missing: no worker is ended for that, as a worker is that
        has none itself. Raises ProtocolError.
        """
        if (
            type(reference) is not list
            or len(reference) != REFERENCE_FIELDS
            or not all(type(field) is int for field in reference)
        ):
            raise ProtocolError("a message refers to shared memory in an unknown form")
        try:
            return self._resolved(receipts, *reference)
        except NoDescriptorError as error:
            if self._counts_echoes:
                raise
            return Missing(reference[2], f"a value came in shared memory, and {error.message}")

    def _resolved(
        self,
        receipts: dict[Key, Receipt],
        number: int,
        offset: int,
        size: int,
        slot: int,
        generation: int,
    ) -> memoryview:
        if number >= GIFTS_FROM:
            return self._look_at_given(number, offset, size)
        with self.heap.lock:
            if not 0 <= slot < SLOTS or not (number > 0) <= generation <= GENERATION_MAX:
                raise ProtocolError("a message names a lease that cannot be")
            receipt = receipts.get((slot, generation))
            if receipt is None and generation:
                receipt = Receipt(self._borrowed, slot, generation, self.echoes)
                receipts[slot, generation] = receipt
            segment = self._segment(number)
            if size <= 0 or offset < 0 or offset + size > segment.size:
                raise ProtocolError("a message refers to memory outside of its segment")
            if number < 0:  # ours, or what we passed on: whatever keeps it must still be there
                keep = segment.hold_of(offset, size)
                if keep is None:
                    raise ProtocolError("a message refers to memory that was given back")
            else:
                keep = Hold(segment, offset, size, receipt)
        return view_of(segment.mapping.address + offset, size, keep)

    def received_all_of(self, references: list[Any]) -> None:
        """A message has come, with these."""
        if not self._counts_echoes and any(number < 0 for number, *_ in references):
            self.echoes.received += 1
        for number, *_ in references:
            if number >= GIFTS_FROM:
                self.shown.drop(number)
        with self.heap.lock:
            self.leases.collect()

    def dropped(self, numbers: tuple[int, ...]) -> None:
        """The peer has given these segments up; none: it asks to give up what idles here.

        Raises ProtocolError.
        """
        if not numbers:
            self.heap.trim(idle_s=IDLE_TRIM_S)
            self.speak()
            self._tell_counts()
        try:
            self.shown.read_records()
        except NoDescriptorError:
            if self._counts_echoes:
                raise
        for number in numbers:
            if (segment := self.shown.drop(number)) is not None:
                self.heap.leave(segment)
                self.bury(segment)

    def _look_at_given(self, number: int, offset: int, size: int) -> memoryview:
        mapping = self.shown.gift(number)
        if mapping is None or offset != 0 or size != mapping.size:
            raise ProtocolError("a message refers to memory that was never given")
        return view_of(mapping.address, size, mapping)

    def _segment(self, number: int) -> Segment:
        segment = self._shown.get(-number) if number < 0 else self.shown.segment(number)
        if segment is None:
            raise ProtocolError("a message refers to a segment that was never shown")
        return segment

    def close(self) -> None:
        """The link is over: what was lent comes back, views of what was borrowed live on. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with self.heap.lock:
            self.heap.endpoints.discard(self)
            self.leases.cancel_all()
            theirs = self.shown.close()
            self._shown.clear()
        for segment in theirs:
            self.heap.orphan(segment)
        self._fds.close()


def key_of(buffer: Buffer | Loose) -> Key:
    """What a buffer is known by while it is sent; one that is loose lies at no address."""
    size = len(buffer)
    return (-id(buffer), size) if isinstance(buffer, Loose) else (address_of(buffer), size)


def with_buffers(message: Any, buffers: tuple[Any, ...]) -> Any:
    """The same message with other buffers."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return type(message)(**(fields | {"buffers": buffers}))


def is_carrier(message: Any) -> bool:
    """Has it buffers out of band?"""
    return type(message) in CARRIERS and bool(message.buffers)
