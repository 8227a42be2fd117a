"""What is known of the tools, and what a call of one must be: a name and params."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from snakepit.errors import InvalidParamsError, ToolNotFoundError
from snakepit.pool._settings import is_utf8
from snakepit.protocol import ToolInfo

TOOL_NAME_MAX: Final = 1000  # characters: with its name and all a call has to fit a frame


@frozen
class ToolSpec:
    """A tool as `pool.tools()` shows it. `parameters` is a JSON Schema of its params object."""

    name: str
    description: str
    parameters: dict[str, Any]
    streaming: bool


def specs_of(tools: Mapping[str, ToolInfo]) -> dict[str, ToolSpec]:
    """The same tools as they are shown."""
    return {
        info.name: ToolSpec(info.name, info.description, info.parameters or {}, info.streaming)
        for info in tools.values()
    }


def find_tool(tools: Mapping[str, ToolInfo] | None, name: str) -> ToolInfo | None:
    """What is known of the tool; None before any worker was ready.

    Raises ToolNotFoundError, and InvalidParamsError for what cannot be a tool's name.
    """
    if not isinstance(name, str):
        raise InvalidParamsError(repr(name), "a tool is named by a string")
    if tools is None:
        if not is_utf8(name) or len(name) > TOOL_NAME_MAX:
            raise ToolNotFoundError(name)
        return None
    info = tools.get(name)
    if info is None:
        raise ToolNotFoundError(name, tuple(difflib.get_close_matches(name, tools)))
    return info


def as_params(tool: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """The params of a call as a dict. Raises InvalidParamsError."""
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise InvalidParamsError(
            tool, f"params must map argument names to values, not be a {type(params).__name__}"
        )
    for name in params:
        if not isinstance(name, str):
            raise InvalidParamsError(tool, f"argument names are strings, not {name!r}")
    return dict(params)
