"""THE OTHER PROCESS: what runs in a worker, and what adapters are written with."""

from snakepit.worker._context import CallContext as CallContext
from snakepit.worker._context import context as context
from snakepit.worker._tool import Adapter as Adapter
from snakepit.worker._tool import tool as tool
