"""What a transport must keep, as checks that need no test framework.

from snakepit.testing import FRAMING_CHECKS, TRANSPORT_CHECKS, pair_of, run_checks

trio.run(run_checks, pair_of(MyTransport()), TRANSPORT_CHECKS)
"""

from snakepit.testing._check import Check as Check
from snakepit.testing._check import run_checks as run_checks
from snakepit.testing._framing_checks import FRAMING_CHECKS as FRAMING_CHECKS
from snakepit.testing._pair import BytePeer as BytePeer
from snakepit.testing._pair import OpenBytePair as OpenBytePair
from snakepit.testing._pair import OpenPair as OpenPair
from snakepit.testing._pair import Peer as Peer
from snakepit.testing._pair import pair_of as pair_of
from snakepit.testing._pair import running as running
from snakepit.testing._probes import LINK_BYTES_MAX as LINK_BYTES_MAX
from snakepit.testing._transport_checks import TRANSPORT_CHECKS as TRANSPORT_CHECKS
