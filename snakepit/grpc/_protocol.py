"""One HTTP/2 connection of ours, at either end of it. It uses private names of grpclib and h2.

- A frame holds 16 KiB unless the receiver allows more, and each costs as much as a small call: a
  large value would be thousands of them.
- h2 allows it from the read after the one with the peer's consent, which the first of the larger
  frames may share.
- grpclib knows not all events of h2's: one that it does not know, of a frame that anybody may send
  and nobody has to understand, would end the connection. It means nothing here.
- h2 describes each frame that comes, in hexadecimal digits, for a log that nobody keeps.
"""

from __future__ import annotations

from asyncio import BaseTransport
from typing import ClassVar

from grpclib.protocol import H2Protocol
from h2.events import (
    AlternativeServiceAvailable,
    Event,
    InformationalResponseReceived,
    UnknownFrameReceived,
)
from h2.exceptions import FrameTooLargeError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes
from hyperframe.frame import Frame

from snakepit.grpc._limits import HTTP2_FRAME_BYTES_MAX

IGNORED = (
    UnknownFrameReceived,
    AlternativeServiceAvailable,
    InformationalResponseReceived,
)
Settings = dict[SettingCodes | int, int]


class WideFrameBuffer(FrameBuffer):
    """The frames that come, of `HTTP2_FRAME_BYTES_MAX` from the beginning, and described by nothing."""

    def _validate_frame_length(self, length: int) -> None:
        if length > HTTP2_FRAME_BYTES_MAX:
            raise FrameTooLargeError(f"a frame of {length} bytes, over {HTTP2_FRAME_BYTES_MAX}")

    def __next__(self) -> Frame:
        frame = super().__next__()
        frame._body_repr = _nothing  # type: ignore[method-assign]
        return frame


def _nothing() -> str:
    return ""


def _ignore(_event: Event) -> None:
    pass


class WideProtocol(H2Protocol):
    """A connection whose peer may send frames of `HTTP2_FRAME_BYTES_MAX`."""

    settings: ClassVar[Settings] = {SettingCodes.MAX_FRAME_SIZE: HTTP2_FRAME_BYTES_MAX}

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin, and tell the peer what it may do."""
        super().connection_made(transport)
        processors = self.processor.processors
        for event in IGNORED:
            processors.setdefault(event, _ignore)
        h2 = self.connection._connection
        h2.incoming_buffer = WideFrameBuffer(server=not h2.config.client_side)
        h2.update_settings(self.settings)
        self.connection.flush()
