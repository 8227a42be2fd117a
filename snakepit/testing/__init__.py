"""For tests of what uses a pool: workers in memory, and what may go wrong with them.

    async with snakepit.open_pool(Adapter, transport="memory") as pool: ...

`MemoryTransport(faults=plan)` asks `plan` about every message between host and workers. None of this
is imported by anything else of the library.
"""

from snakepit.testing._crash import crash as crash
from snakepit.transports._faults import Delay as Delay
from snakepit.transports._faults import Die as Die
from snakepit.transports._faults import Fault as Fault
from snakepit.transports._faults import FaultPlan as FaultPlan
from snakepit.transports._faults import Faults as Faults
from snakepit.transports._faults import Garbage as Garbage
from snakepit.transports._faults import Passage as Passage
from snakepit.transports._faults import Silence as Silence
from snakepit.transports._memory import MemoryTransport as MemoryTransport
