"""The option classes: frozen, checked when built, their defaults those of the documented API."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import attrs
import numpy as np
import pytest

from snakepit import ConfigError, CrashBarrier, Queue, Sessions, Startup, Stop, ZeroCopy

DEFAULTS: dict[type, dict[str, Any]] = {
    Startup: {"timeout": 10, "init_timeout": 300, "batch_size": 8, "batch_delay": 0.75},
    Queue: {"max_size": None, "timeout": None},
    Sessions: {"affinity": "hint", "ttl": 3600, "max": 10_000},
    Stop: {"cancel_grace": 1, "term_grace": 2, "drain_timeout": 6},
    CrashBarrier: {
        "max_restarts": 5,
        "window": 60,
        "retry": "idempotent",
        "max_retries": 1,
        "taint": 5,
        "quarantine_after": 3,
    },
    ZeroCopy: {"enabled": True, "threshold": 2**20, "budget_mb": None, "copy_results": False},
}
CLASSES = list(DEFAULTS)

ABOVE_0 = "a finite number above 0"
FROM_0 = "a finite number of at least 0"
WHOLE_0 = "a whole number of at least 0"
WHOLE_1 = "a whole number of at least 1"
WHOLE_64_KIB = "a whole number of at least 65536"
TRUTH = "True or False"
WORDS = "'idempotent' or 'never'"
AFFINITY = "'hint' or 'strict_queue' or 'strict_fail_fast'"
DURATION = "a finite number of seconds above 0, a timedelta above 0, or None"
ALLOWED = {
    (Startup, "timeout"): ABOVE_0,
    (Startup, "init_timeout"): ABOVE_0,
    (Startup, "batch_size"): WHOLE_1,
    (Startup, "batch_delay"): FROM_0,
    (Queue, "max_size"): WHOLE_0 + ", or None",
    (Queue, "timeout"): ABOVE_0 + ", or None",
    (Sessions, "affinity"): AFFINITY,
    (Sessions, "ttl"): DURATION,
    (Sessions, "max"): WHOLE_1,
    (Stop, "cancel_grace"): FROM_0,
    (Stop, "term_grace"): FROM_0,
    (Stop, "drain_timeout"): FROM_0,
    (CrashBarrier, "max_restarts"): WHOLE_0,
    (CrashBarrier, "window"): ABOVE_0,
    (CrashBarrier, "retry"): WORDS,
    (CrashBarrier, "max_retries"): WHOLE_0,
    (CrashBarrier, "taint"): FROM_0,
    (CrashBarrier, "quarantine_after"): WHOLE_1 + ", or None",
    (ZeroCopy, "enabled"): TRUTH,
    (ZeroCopy, "threshold"): WHOLE_64_KIB,
    (ZeroCopy, "budget_mb"): WHOLE_1 + ", or None",
    (ZeroCopy, "copy_results"): TRUTH,
}
STRANGE: list[Any] = ["1", "", b"1", True, False, (), [1], {}, object(), 1j, print, Stop]
NO_NUMBERS = [*STRANGE, math.nan, math.inf, -math.inf, -1, -1e-9, -(10**400)]
WRONG: dict[str, list[Any]] = {
    ABOVE_0: [*NO_NUMBERS, None, 0, 0.0, -0.0, 10**400],
    ABOVE_0 + ", or None": [*NO_NUMBERS, 0, 10**400],
    FROM_0: [*NO_NUMBERS, None, 10**400],
    WHOLE_0: [*NO_NUMBERS, None, 1.0, 0.5],
    WHOLE_0 + ", or None": [*NO_NUMBERS, 1.0, 0.5],
    WHOLE_1: [*NO_NUMBERS, None, 0, 1.0, 1.5],
    WHOLE_1 + ", or None": [*NO_NUMBERS, 0, 1.0, 1.5],
    WHOLE_64_KIB: [*NO_NUMBERS, None, 0, 65_535, 65_536.0],
    TRUTH: ["True", "", None, 0, 1, (), [], object(), np.True_],
    AFFINITY: [*STRANGE, None, 1, "Hint", "strict", "hint "],
    DURATION: [*NO_NUMBERS, 0, 10**400, dt.timedelta(0), dt.timedelta(-1)],
    WORDS: [*STRANGE, None, 1, "Never", "always", "idempotent ", np.array(["never", "never"])],
}
RIGHT: dict[str, list[Any]] = {
    ABOVE_0: [1, 0.5, 1e-300, 1e300, 10**30, np.float64(2.5)],
    ABOVE_0 + ", or None": [None, 1, 0.5],
    FROM_0: [0, 0.0, 1, 2.5],
    WHOLE_0: [0, 1, 10**6],
    WHOLE_0 + ", or None": [None, 0, 1, 10**6],
    WHOLE_1: [1, 10**6],
    WHOLE_1 + ", or None": [None, 1, 10**6],
    WHOLE_64_KIB: [65_536, 2**40],
    TRUTH: [True, False],
    AFFINITY: ["hint", "strict_queue", "strict_fail_fast"],
    DURATION: [None, 1, 0.5, dt.timedelta(microseconds=1), dt.timedelta(days=400)],
    WORDS: ["idempotent", "never"],
}
CASES = [pytest.param(*case, id=f"{case[0].__name__}.{case[1]}") for case in ALLOWED]


def test_every_option_is_in_these_tables() -> None:
    fields = {(kind, field.name) for kind in CLASSES for field in attrs.fields(kind)}
    assert fields == set(ALLOWED)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_defaults_are_the_documented_ones(kind: type) -> None:
    assert attrs.asdict(kind()) == DEFAULTS[kind]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_wrong_value_is_named_with_its_option_and_with_what_is_allowed(
    kind: type, name: str
) -> None:
    allowed = ALLOWED[kind, name]
    for value in WRONG[allowed]:
        with pytest.raises(ConfigError) as caught:
            kind(**{name: value})
        error = caught.value
        assert error.option == f"{kind.__name__}.{name}"
        assert error.value is value
        assert error.allowed == allowed
        assert str(error).startswith(f"{kind.__name__}.{name}=")
        assert str(error).endswith(f" is not possible: {allowed}")
        assert isinstance(error, ValueError)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_allowed_value_is_kept_as_it_was_given(kind: type, name: str) -> None:
    for value in RIGHT[ALLOWED[kind, name]]:
        assert getattr(kind(**{name: value}), name) is value


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_option_cannot_be_changed_but_a_changed_copy_is_checked(kind: type, name: str) -> None:
    options = kind()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(options, name, 1)
    with pytest.raises(ConfigError, match=f"{kind.__name__}.{name}"):
        attrs.evolve(options, **{name: "wrong"})


@pytest.mark.parametrize("kind", CLASSES)
def test_options_are_given_by_name_and_unknown_ones_are_refused(kind: type) -> None:
    with pytest.raises(TypeError):
        kind(1)
    with pytest.raises(TypeError, match="no_such_option"):
        kind(no_such_option=1)
    with pytest.raises(AttributeError):
        kind().no_such_option = 1


@pytest.mark.parametrize("kind", CLASSES)
def test_equal_options_are_equal_and_serve_as_keys(kind: type) -> None:
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    assert kind() != object()


def test_options_that_differ_are_not_equal() -> None:
    assert Startup(timeout=1) != Startup(timeout=2)
    assert Stop(term_grace=1) != Stop(drain_timeout=1)


def test_the_queue_of_a_service_is_bounded() -> None:
    """The original's figures, as a preset; it is no option of its own."""
    assert Queue(max_size=1000, timeout=5.0) == Queue.SERVICE
    assert Queue() != Queue.SERVICE
    assert "SERVICE" not in attrs.asdict(Queue.SERVICE)
