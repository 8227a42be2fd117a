"""HOW messages travel, the host's end; what a transport of one's own is made of."""

from snakepit.process import close_fds as close_fds
from snakepit.process import guard_fds as guard_fds
from snakepit.transports._base import BaseLink as BaseLink
from snakepit.transports._base import Channel as Channel
from snakepit.transports._base import Link as Link
from snakepit.transports._base import Transport as Transport
from snakepit.transports._byte_channel import ByteChannel as ByteChannel
from snakepit.transports._byte_channel import ByteStream as ByteStream
from snakepit.transports._memory import MemoryTransport as MemoryTransport
from snakepit.transports._shm import ShmTransport as ShmTransport
from snakepit.transports._stdio import StdioTransport as StdioTransport
