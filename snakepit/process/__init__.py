"""OS processes: starting them, watching them end, ending them."""

from snakepit.process._fork_guard import close_fds as close_fds
from snakepit.process._fork_guard import fork_generation as fork_generation
from snakepit.process._fork_guard import guard_fds as guard_fds
from snakepit.process._fork_guard import unguard_fds as unguard_fds
from snakepit.process._guardian import guardian as guardian
from snakepit.process._hold import hold_until as hold_until
from snakepit.process._hold import shielded as shielded
from snakepit.process._ladder import climb as climb
from snakepit.process._marking import new_mark as new_mark
from snakepit.process._memory import resident_mb as resident_mb
from snakepit.process._memory_limit import memory_limit as memory_limit
from snakepit.process._stderr import StderrCollector as StderrCollector
from snakepit.process._stoppable import ExitStatus as ExitStatus
from snakepit.process._stoppable import Stoppable as Stoppable
from snakepit.process._strays import end_strays_at_last as end_strays_at_last
from snakepit.process._sweep import Cleanup as Cleanup
from snakepit.process._sweep import cleanup as cleanup
from snakepit.process._sweep import end_orphans as end_orphans
from snakepit.process._sweep import sweep as sweep
from snakepit.process._worker_process import WorkerProcess as WorkerProcess
from snakepit.process._worker_process import kill_running as kill_running
