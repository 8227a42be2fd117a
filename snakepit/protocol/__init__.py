"""What travels between host and worker: messages, frames, values, exceptions. No I/O here."""

from __future__ import annotations

from ._exceptions import args_of as args_of
from ._exceptions import describe as describe
from ._exceptions import rebuild as rebuild
from ._exceptions import rebuild_host_error as rebuild_host_error
from ._ext import TakesLongError as TakesLongError
from ._framing import FRAME_BYTES_MAX as FRAME_BYTES_MAX
from ._framing import PART_BYTES_MAX as PART_BYTES_MAX
from ._framing import PREFIX_BYTES as PREFIX_BYTES
from ._framing import FrameDecoder as FrameDecoder
from ._framing import frame as frame
from ._loose import Loose as Loose
from ._loose import Missing as Missing
from ._loose import Place as Place
from ._loose import Places as Places
from ._messages import NIL as NIL
from ._messages import PROTOCOL_VERSION as PROTOCOL_VERSION
from ._messages import Buffer as Buffer
from ._messages import Buffers as Buffers
from ._messages import Call as Call
from ._messages import Cancel as Cancel
from ._messages import Credit as Credit
from ._messages import Drop as Drop
from ._messages import End as End
from ._messages import EndSession as EndSession
from ._messages import ErrorData as ErrorData
from ._messages import Failure as Failure
from ._messages import Goodbye as Goodbye
from ._messages import Hello as Hello
from ._messages import HostCall as HostCall
from ._messages import HostCancel as HostCancel
from ._messages import HostFailure as HostFailure
from ._messages import HostReply as HostReply
from ._messages import InputCredit as InputCredit
from ._messages import InputEnd as InputEnd
from ._messages import InputItem as InputItem
from ._messages import InputStop as InputStop
from ._messages import Item as Item
from ._messages import Message as Message
from ._messages import Part as Part
from ._messages import Progress as Progress
from ._messages import Ready as Ready
from ._messages import Recall as Recall
from ._messages import Result as Result
from ._messages import Returned as Returned
from ._messages import Settled as Settled
from ._messages import Shutdown as Shutdown
from ._messages import Start as Start
from ._messages import ToHost as ToHost
from ._messages import ToolInfo as ToolInfo
from ._messages import ToWorker as ToWorker
from ._messages import decode_to_host as decode_to_host
from ._messages import decode_to_worker as decode_to_worker
from ._messages import encode_message as encode_message
from ._outbox import OnSent as OnSent
from ._outbox import Outbox as Outbox
from ._outbox import call_of as call_of
from ._parts import CARRIERS as CARRIERS
from ._parts import TRANSFERS_OPEN_MAX as TRANSFERS_OPEN_MAX
from ._parts import Frame as Frame
from ._parts import Packer as Packer
from ._parts import Unpacker as Unpacker
from ._parts import forget as forget
from ._parts import transfer_of as transfer_of
from ._values import BUFFER_BYTES_MIN as BUFFER_BYTES_MIN
from ._values import decode as decode_value
from ._values import encode as encode_value
from ._values import encode_arguments as encode_arguments
from ._values import encode_params as encode_params
from ._writable import Copy as Copy

__all__ = [
    "BUFFER_BYTES_MIN",
    "CARRIERS",
    "FRAME_BYTES_MAX",
    "NIL",
    "PART_BYTES_MAX",
    "PREFIX_BYTES",
    "PROTOCOL_VERSION",
    "TRANSFERS_OPEN_MAX",
    "Buffer",
    "Buffers",
    "Call",
    "Cancel",
    "Copy",
    "Credit",
    "Drop",
    "End",
    "EndSession",
    "ErrorData",
    "Failure",
    "Frame",
    "FrameDecoder",
    "Goodbye",
    "Hello",
    "HostCall",
    "HostCancel",
    "HostFailure",
    "HostReply",
    "InputCredit",
    "InputEnd",
    "InputItem",
    "InputStop",
    "Item",
    "Loose",
    "Message",
    "Missing",
    "OnSent",
    "Outbox",
    "Packer",
    "Part",
    "Place",
    "Places",
    "Progress",
    "Ready",
    "Recall",
    "Result",
    "Returned",
    "Settled",
    "Shutdown",
    "Start",
    "TakesLongError",
    "ToHost",
    "ToWorker",
    "ToolInfo",
    "Unpacker",
    "args_of",
    "call_of",
    "decode_to_host",
    "decode_to_worker",
    "decode_value",
    "describe",
    "encode_arguments",
    "encode_message",
    "encode_params",
    "encode_value",
    "forget",
    "frame",
    "rebuild",
    "rebuild_host_error",
    "transfer_of",
]
