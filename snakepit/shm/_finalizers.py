"""The code that runs when something here is not referred to any more: short, and never cut short."""

from __future__ import annotations

from typing import Final

from snakepit.shm._holds import Block
from snakepit.shm._leases import Receipt
from snakepit.shm._memory import Mapping

# It may run in the middle of anything; an interrupt of a tool must not land in it, for Python drops an
# exception of a finalizer, and with it what the finalizer was to do.
FINALIZERS: Final = frozenset(kind.__del__.__code__ for kind in (Block, Receipt, Mapping))
