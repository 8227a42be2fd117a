"""An adapter that is a module."""

from snakepit import tool


@tool
def twice(number: int) -> int:
    return 2 * number


def not_a_tool() -> None: ...
