"""The answer to a unary call in one write. It uses private names of grpclib, which is pinned.

grpclib writes three times, headers, message and trailers: three system calls here, and a client that is
woken for each of them.
"""

from __future__ import annotations

from typing import Any, Final

from grpclib.server import Stream

HEADERS: Final = [(":status", "200"), ("content-type", "application/grpc+proto")]
TRAILERS: Final = [("grpc-status", "0")]
HEAD_BYTES: Final = 5


def head_of_message(size: int) -> bytes:
    """What stands before a message of so many bytes: it is not compressed, and how long it is."""
    return b"\0" + size.to_bytes(HEAD_BYTES - 1, "big")


def answer_at_once(call: Stream[Any, Any], message: bytes) -> bool:
    """Send the only message of the call, and with it that all is well. Never waits.

    False, and nothing has been sent: the client has no room for all of it now, or is gone, or the call has
    been answered. Then `send_message` is the way.
    """
    if call._send_initial_metadata_done or call._send_trailing_metadata_done:
        return False
    stream = call._stream
    if not stream.connection.write_ready.is_set() or not stream.closable:
        return False
    h2, number, size = stream._h2_connection, stream.id, HEAD_BYTES + len(message)
    assert number is not None
    if size > min(h2.local_flow_control_window(number), h2.max_outbound_frame_size):
        return False
    h2.send_headers(number, HEADERS)
    h2.send_data(number, head_of_message(len(message)) + message)
    h2.send_headers(number, TRAILERS, end_stream=True)
    call._send_initial_metadata_done = call._send_message_done = True
    call._send_trailing_metadata_done = True  # so grpclib sends nothing when the handler returns
    stream._transport.write(h2.data_to_send())
    return True
