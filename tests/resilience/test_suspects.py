"""Which calls are suspect, which are in quarantine, and when that is over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.resilience import Fingerprint, Quarantine, _quarantine
from snakepit.resilience._fingerprint import BLOCK_BYTES, SAMPLE_BYTES_MAX
from snakepit.resilience._quarantine import SUSPECTS_MAX

WINDOW_S = 60.0


def a_call(name: str) -> Fingerprint:
    return Fingerprint("tool", (name.encode(),))


def kill(quarantine: Quarantine, name: str, *times: float, doubtful: bool = False) -> None:
    for now in times:
        quarantine.killed(a_call(name), now, doubtful=doubtful)


def is_refused(quarantine: Quarantine, name: str, now: float) -> bool:
    suspect = quarantine.find(a_call(name), now)
    return suspect is not None and quarantine.refuses(suspect)


def test_a_call_is_in_quarantine_from_so_many_kills_on_until_the_window_is_over() -> None:
    quarantine = Quarantine(quarantine_after=3, window_s=WINDOW_S)
    kill(quarantine, "a", 0, 1)
    assert not is_refused(quarantine, "a", 1)
    kill(quarantine, "a", 2)
    assert is_refused(quarantine, "a", 2)
    suspect = quarantine.find(a_call("a"), 12)
    assert suspect is not None
    assert (suspect.kills, quarantine.seconds_left(suspect, 12)) == (3, 50)
    assert is_refused(quarantine, "a", 61.9)
    assert not is_refused(quarantine, "a", 62)
    kill(quarantine, "a", 62, 63)
    assert not is_refused(quarantine, "a", 63)


def test_others_are_not_touched_by_it() -> None:
    quarantine = Quarantine(quarantine_after=1, window_s=WINDOW_S)
    kill(quarantine, "a", 0)
    assert is_refused(quarantine, "a", 0)
    assert not is_refused(quarantine, "b", 0)
    assert quarantine.find(Fingerprint("another", (b"a",)), 0) is None


def test_an_answer_clears_it() -> None:
    quarantine = Quarantine(quarantine_after=2, window_s=WINDOW_S)
    kill(quarantine, "a", 0)
    suspect = quarantine.find(a_call("a"), 1)
    assert suspect is not None
    quarantine.answered(suspect)
    assert not quarantine.suspects
    quarantine.answered(suspect)
    kill(quarantine, "a", 2)
    assert not is_refused(quarantine, "a", 2)


def test_kills_with_less_than_a_window_between_them_add_up_however_long_that_takes() -> None:
    quarantine = Quarantine(quarantine_after=3, window_s=WINDOW_S)
    kill(quarantine, "a", 0, 59, 118)
    assert is_refused(quarantine, "a", 118)


def test_a_call_that_runs_for_longer_than_the_window_before_it_kills_is_found_out_too() -> None:
    quarantine = Quarantine(quarantine_after=3, window_s=WINDOW_S)
    kill(quarantine, "a", 0)
    for now in (1, 1001):
        known = quarantine.find(a_call("a"), now)
        assert known is not None
        assert not quarantine.refuses(known)
        assert quarantine.find(a_call("b"), now + 900) is None  # by then it is forgotten
        quarantine.killed(a_call("a"), now + 1000, known=known)
    assert is_refused(quarantine, "a", 2001)


def test_doubtful_kills_count_until_it_is_seen_that_somebody_outside_kills() -> None:
    quarantine = Quarantine(quarantine_after=2, window_s=WINDOW_S)
    kill(quarantine, "a", 0, 1, doubtful=True)
    kill(quarantine, "b", 1)
    kill(quarantine, "b", 2, doubtful=True)
    assert is_refused(quarantine, "a", 2)
    assert is_refused(quarantine, "b", 2)
    quarantine.killer_seen()
    assert quarantine.find(a_call("a"), 2) is None
    assert not is_refused(quarantine, "b", 2)
    kill(quarantine, "b", 3)
    assert is_refused(quarantine, "b", 3)


def test_without_a_number_nothing_is_kept() -> None:
    quarantine = Quarantine(quarantine_after=None, window_s=WINDOW_S)
    assert quarantine.killed(a_call("a"), 0) is None
    assert not quarantine.suspects


def test_so_many_suspects_are_remembered_and_no_more() -> None:
    quarantine = Quarantine(quarantine_after=1, window_s=WINDOW_S)
    for number in range(SUSPECTS_MAX + 10):
        kill(quarantine, f"{number}", 0)
    kill(quarantine, "10", 1)
    kill(quarantine, "one more", 2)
    assert len(quarantine.suspects) == SUSPECTS_MAX
    assert is_refused(quarantine, "10", 2)
    assert not is_refused(quarantine, "11", 2)
    for suspect in list(quarantine.suspects.values()):
        quarantine.answered(suspect)
    assert not quarantine._shapes


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 30.0, 59.0, 60.0, 200.0]),  # later by this
        st.sampled_from(["run", "run", "run", "killer"]),
        st.sampled_from("ab"),
        st.sampled_from(["kills", "kills", "doubtful", "answers", "neither"]),
        st.sampled_from([0.0, 0.0, 100.0]),  # how long it runs
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(after=st.integers(1, 3), events=EVENTS)
def test_against_its_definition(
    after: int, events: list[tuple[float, str, str, str, float]]
) -> None:
    """One call at a time: its deaths since an answer, with less than a window between them, count."""
    quarantine = Quarantine(quarantine_after=after, window_s=WINDOW_S)
    now = 0.0
    deaths: dict[str, list[bool]] = {"a": [], "b": []}  # were they doubtful?
    last_at = {"a": 0.0, "b": 0.0}
    for later, what, name, how, seconds in events:
        now += later
        if what == "killer":
            quarantine.killer_seen()
            deaths = {each: [doubt for doubt in deaths[each] if not doubt] for each in deaths}
            continue
        if last_at[name] <= now - WINDOW_S:
            deaths[name] = []
        known = quarantine.find(a_call(name), now)
        assert (known is None) == (not deaths[name])
        refused = known is not None and quarantine.refuses(known)
        assert refused == (len(deaths[name]) >= after)
        if refused:
            assert known is not None
            assert quarantine.seconds_left(known, now) == last_at[name] + WINDOW_S - now
            continue
        now += seconds
        if how in ("kills", "doubtful"):
            quarantine.killed(a_call(name), now, known=known, doubtful=how == "doubtful")
            deaths[name].append(how == "doubtful")
            last_at[name] = now
        elif how == "answers" and known is not None:
            quarantine.answered(known)
            deaths[name] = []


# -- fingerprints ------------------------------------------------------------------------------------


def test_the_same_call_has_the_same_fingerprint_and_others_have_others() -> None:
    pieces = (b"abc", memoryview(b"x" * 100))
    first = Fingerprint("tool", pieces).digest
    assert Fingerprint("tool", (bytearray(b"abc"), b"x" * 100)).digest == first  # type: ignore[arg-type]
    different = [
        Fingerprint("tool2", pieces),
        Fingerprint("tool", (b"abx", pieces[1])),
        Fingerprint("tool", (b"abc", b"x" * 99)),
        Fingerprint("tool", (b"abcx", b"x" * 99)),
        Fingerprint("tool", (b"abc",)),
        Fingerprint("tool", (b"abc", pieces[1], b"")),
        Fingerprint("\udc80", pieces),
    ]
    digests = {each.digest for each in different}
    assert len(digests | {first}) == len(different) + 1


def test_nothing_is_hashed_for_calls_of_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = Quarantine(quarantine_after=1, window_s=WINDOW_S)
    kill(quarantine, "a", 0)
    monkeypatch.setattr(
        _quarantine.Fingerprint, "digest", property(lambda _: pytest.fail("it was hashed"))
    )
    assert quarantine.find(Fingerprint("tool", (b"longer",)), 1) is None
    assert quarantine.find(Fingerprint("look", (b"a",)), 1) is None


def test_of_large_arguments_a_sample_counts_and_their_size() -> None:
    """The beginning, the end, and blocks between; what lies between these does not."""
    size = 8 * SAMPLE_BYTES_MAX
    whole = bytearray(size)
    first = Fingerprint("tool", (b"", memoryview(whole))).digest

    def digest_with_a_one_at(place: int) -> bytes:
        whole[place] = 1
        try:
            return Fingerprint("tool", (b"", memoryview(whole))).digest
        finally:
            whole[place] = 0

    assert digest_with_a_one_at(0) != first
    assert digest_with_a_one_at(size - 1) != first
    seen = [digest_with_a_one_at(place) != first for place in range(0, size, 81 * BLOCK_BYTES // 2)]
    assert 0 < sum(seen) < len(seen)
    assert Fingerprint("tool", (b"", memoryview(whole)[:-1])).digest != first


def test_a_piece_that_is_not_larger_than_its_share_counts_in_full() -> None:
    piece = bytearray(SAMPLE_BYTES_MAX // 2)
    first = Fingerprint("tool", (piece, b"")).digest  # type: ignore[arg-type]
    for place in (0, BLOCK_BYTES + 1, len(piece) // 3, len(piece) - 1):
        piece[place] = 1
        assert Fingerprint("tool", (piece, b"")).digest != first  # type: ignore[arg-type]
        piece[place] = 0
