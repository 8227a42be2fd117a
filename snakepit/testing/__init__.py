"""For tests: pools without processes and what may go wrong in them; what a transport must keep.

    async with snakepit.open_pool(Adapter, transport="memory") as pool: ...

`MemoryTransport(faults=plan)` asks `plan` about every message between host and workers. The checks
of transports need no test framework:

    from snakepit.testing import FRAMING_CHECKS, TRANSPORT_CHECKS, pair_of, run_checks

    trio.run(run_checks, pair_of(MyTransport()), TRANSPORT_CHECKS)

None of this is imported by anything else of the library.
"""

from snakepit.testing._cancel_points import CancelPoint as CancelPoint
from snakepit.testing._cancel_points import cancel_at_every_checkpoint as cancel_at_every_checkpoint
from snakepit.testing._check import Check as Check
from snakepit.testing._check import run_checks as run_checks
from snakepit.testing._crash import crash as crash
from snakepit.testing._fake_adapter import FakeAdapter as FakeAdapter
from snakepit.testing._fake_adapter import fake_adapter as fake_adapter
from snakepit.testing._framing_checks import FRAMING_CHECKS as FRAMING_CHECKS
from snakepit.testing._pair import BytePeer as BytePeer
from snakepit.testing._pair import OpenBytePair as OpenBytePair
from snakepit.testing._pair import OpenPair as OpenPair
from snakepit.testing._pair import Peer as Peer
from snakepit.testing._pair import pair_of as pair_of
from snakepit.testing._pair import running as running
from snakepit.testing._probes import LINK_BYTES_MAX as LINK_BYTES_MAX
from snakepit.testing._seeded import StuckError as StuckError
from snakepit.testing._seeded import run_seeded as run_seeded
from snakepit.testing._seeded_faults import SeededFaults as SeededFaults
from snakepit.testing._transport_checks import TRANSPORT_CHECKS as TRANSPORT_CHECKS
from snakepit.transports._faults import Delay as Delay
from snakepit.transports._faults import Die as Die
from snakepit.transports._faults import Fault as Fault
from snakepit.transports._faults import FaultPlan as FaultPlan
from snakepit.transports._faults import Faults as Faults
from snakepit.transports._faults import Garbage as Garbage
from snakepit.transports._faults import Passage as Passage
from snakepit.transports._faults import Silence as Silence
from snakepit.transports._memory import MemoryTransport as MemoryTransport
