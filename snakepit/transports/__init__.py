"""HOW messages travel, the host's end."""

from snakepit.transports._base import BaseLink as BaseLink
from snakepit.transports._base import Channel as Channel
from snakepit.transports._base import Link as Link
from snakepit.transports._base import Transport as Transport
from snakepit.transports._memory import MemoryLink as MemoryLink
from snakepit.transports._memory import MemoryStream as MemoryStream
from snakepit.transports._memory import MemoryTransport as MemoryTransport
from snakepit.transports._stdio import StdioTransport as StdioTransport
