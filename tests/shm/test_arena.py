"""The arena's books: no block overlaps another, nothing is lost, the budget holds."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit.shm._arena import ALIGNMENT, Arena, class_of

MIB = 2**20
BUDGET = 64 * MIB


class ArenaMachine(RuleBasedStateMachine):
    """Any order of taking, giving back and trimming, against a plain list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(BUDGET)
        self.sizes: dict[int, int] = {}  # of the segments that were made
        self.blocks: list[tuple[int, int, int]] = []  # segment, offset, bytes asked for
        self.numbers = 0

    @rule(nbytes=st.one_of(st.integers(1, 3 * MIB), st.integers(1, BUDGET)))
    def take(self, nbytes: int) -> None:
        place = self.arena.find(nbytes)
        if place is None:
            size = self.arena.plan(nbytes)
            if size is None:
                return
            assert size >= nbytes
            self.numbers += 1
            self.sizes[self.numbers] = size
            place = self.numbers, self.arena.add(self.numbers, size, nbytes)
        self.blocks.append((*place, nbytes))

    @rule(nbytes=st.integers(1, BUDGET))
    def plan_in_vain(self, nbytes: int) -> None:
        before = self.arena.total_bytes
        size = self.arena.plan(nbytes)
        if size is not None:
            self.arena.abandon(size)
        assert self.arena.total_bytes == before

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        number, offset, _ = self.blocks.pop(data.draw(st.integers(0, len(self.blocks) - 1)))
        self.arena.give_back(number, offset, 1.0)

    @rule(wanted=st.integers(1, BUDGET))
    def trim(self, wanted: int) -> None:
        idle = set(self.sizes) - {number for number, _, _ in self.blocks}
        dropped = self.arena.trim(wanted)
        assert set(dropped) <= idle
        freed = sum(self.sizes.pop(number) for number in dropped)
        assert freed >= wanted or set(dropped) == idle

    @invariant()
    def blocks_lie_apart_inside_of_their_segments(self) -> None:
        ends: dict[int, int] = {}
        for number, offset, nbytes in sorted(self.blocks):
            assert offset % ALIGNMENT == 0
            assert offset >= ends.get(number, 0)
            ends[number] = offset + nbytes
            assert ends[number] <= self.sizes[number]

    @invariant()
    def the_books_agree_with_what_is_there(self) -> None:
        assert set(self.arena.segments) == set(self.sizes)
        assert self.arena.total_bytes == sum(self.sizes.values()) <= BUDGET
        assert self.arena.used_bytes >= sum(nbytes for _, _, nbytes in self.blocks)
        assert self.arena.used_bytes <= self.arena.total_bytes
        if not self.blocks:
            assert self.arena.used_bytes == 0

    def teardown(self) -> None:
        for number, offset, _ in self.blocks:
            self.arena.give_back(number, offset, 2.0)
        assert self.arena.used_bytes == 0
        assert all(slots.free == [(0, slots.size)] for slots in self.arena.segments.values())
        self.arena.trim(2**63)
        assert self.arena.total_bytes == 0
        assert self.arena.find(MIB) is None


ArenaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestArena = ArenaMachine.TestCase


@pytest.mark.parametrize("nbytes", [1, 4096, 4097, 5 * MIB, 5 * MIB + 1, 2**30 - 1, 2**30 + 1])
def test_a_size_class_wastes_an_eighth_at_most(nbytes: int) -> None:
    size = class_of(nbytes)
    assert nbytes <= size <= max(nbytes + nbytes // 8, -(-nbytes // ALIGNMENT) * ALIGNMENT)
    assert size % ALIGNMENT == 0


def test_what_was_freed_last_is_taken_first() -> None:
    """Its pages are the warmest."""
    arena = Arena(BUDGET)
    for number in (1, 2):
        size = arena.plan(16 * MIB)
        assert size is not None
        arena.add(number, size, 16 * MIB)
    arena.give_back(2, 0, 1.0)
    arena.give_back(1, 0, 2.0)
    assert arena.find(16 * MIB) == (1, 0)


def test_what_has_idled_longest_is_given_up_first_and_only_if_it_has_idled_so_long() -> None:
    arena = Arena(BUDGET)
    for number in (1, 2):
        size = arena.plan(16 * MIB)
        assert size is not None
        arena.add(number, size, 16 * MIB)
    arena.give_back(2, 0, 1.0)
    arena.give_back(1, 0, 2.0)
    assert arena.trim(1, idle_before=0.5) == []
    assert arena.trim(1) == [2]
    assert arena.trim(2**63) == [1]
