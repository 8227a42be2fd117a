"""One HTTP/2 connection of ours, at either end of it. It uses private names of grpclib and h2.

- A frame holds 16 KiB unless the receiver allows more, and each costs as much as a small call: a
  large value would be thousands of them.
- h2 allows it from the read after the one with the peer's consent, which the first of the larger
  frames may share.
- grpclib knows not all events of h2's: one that it does not know, of a frame that anybody may send
  and nobody has to understand, would end the connection. It means nothing here.
- h2 describes each frame that comes, in hexadecimal digits, for a log that nobody keeps.
- A client that says GOAWAY because it will begin no more calls waits for those it has; to h2 all
  is over then.
- grpclib takes an empty piece of a message for the end of all messages.
- h2 ends the connection at a header that is not ASCII, which one of its many callers has sent.
- h2 waits for all of a frame before it finds that it is too large: what is no HTTP/2 at all, and
  begins with a great number, would be waited for in vain.
"""

from __future__ import annotations

from asyncio import BaseTransport
from typing import ClassVar, Final

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
from hyperframe.frame import DataFrame, Frame, GoAwayFrame

from snakepit.grpc._limits import HTTP2_FRAME_BYTES_MAX

IGNORED = (
    UnknownFrameReceived,
    AlternativeServiceAvailable,
    InformationalResponseReceived,
)
Settings = dict[SettingCodes | int, int]
FRAME_HEAD_BYTES: Final = 9
FRAME_SIZE_BYTES: Final = 3  # the first of these
ANY_BYTES: Final = "latin-1"  # as an encoding it fails for none


class WideFrameBuffer(FrameBuffer):
    """The frames that come, of `HTTP2_FRAME_BYTES_MAX` from the beginning, and described by nothing."""

    def __init__(self, *, server: bool) -> None:
        super().__init__(server=server)
        self._is_of_server = server

    def _validate_frame_length(self, length: int) -> None:
        if length > HTTP2_FRAME_BYTES_MAX:
            raise FrameTooLargeError(f"a frame of {length} bytes, over {HTTP2_FRAME_BYTES_MAX}")

    def __next__(self) -> Frame:
        while True:
            try:
                frame = super().__next__()
            except StopIteration:
                if len(self._data) >= FRAME_HEAD_BYTES:
                    self._validate_frame_length(int.from_bytes(self._data[:FRAME_SIZE_BYTES]))
                raise
            frame._body_repr = _nothing  # type: ignore[method-assign]
            if type(frame) is DataFrame:
                if not frame.data and _means_nothing(frame):
                    continue
            elif type(frame) is GoAwayFrame and self._lets_calls_finish(frame):
                continue
            return frame

    def _lets_calls_finish(self, frame: GoAwayFrame) -> bool:
        """Does the peer end this connection only once the calls on it have ended?"""
        return frame.error_code == 0 and (self._is_of_server or frame.last_stream_id > 0)


def _means_nothing(empty: DataFrame) -> bool:
    return not empty.flow_controlled_length and "END_STREAM" not in empty.flags


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
        h2.config.header_encoding = ANY_BYTES
        h2.incoming_buffer = WideFrameBuffer(server=not h2.config.client_side)
        h2.update_settings(self.settings)
        self.connection.flush()
