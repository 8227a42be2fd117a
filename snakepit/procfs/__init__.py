"""Processes as the kernel shows them: identity, trees, marks; and the guardian, a program.

Shared by host, workers and guardian, so it needs nothing but a few modules of the standard library:
not even `typing`, which takes as long to import as the rest of the guardian.
"""

from snakepit.procfs._cpus import usable_cpus as usable_cpus
from snakepit.procfs._dump_signals import DUMP_ALL as DUMP_ALL
from snakepit.procfs._dump_signals import DUMP_MAIN as DUMP_MAIN
from snakepit.procfs._dump_signals import THREADS_SHOWN_MAX as THREADS_SHOWN_MAX
from snakepit.procfs._guardian import ENDED_ALL as ENDED_ALL
from snakepit.procfs._guardian import done_with as done_with
from snakepit.procfs._guardian import sending as sending
from snakepit.procfs._guardian import watching as watching
from snakepit.procfs._marks import VARIABLE as VARIABLE
from snakepit.procfs._marks import Mark as Mark
from snakepit.procfs._marks import end_marked as end_marked
from snakepit.procfs._marks import find_marked as find_marked
from snakepit.procfs._marks import kill_marked as kill_marked
from snakepit.procfs._marks import own_mark as own_mark
from snakepit.procfs._marks import random_id as random_id
from snakepit.procfs._prctl import adopt_orphans as adopt_orphans
from snakepit.procfs._prctl import die_with_parent as die_with_parent
from snakepit.procfs._table import TICKS_PER_S as TICKS_PER_S
from snakepit.procfs._table import Handle as Handle
from snakepit.procfs._table import Process as Process
from snakepit.procfs._table import children_of as children_of
from snakepit.procfs._table import cpu_ticks as cpu_ticks
from snakepit.procfs._table import descendants_of as descendants_of
from snakepit.procfs._table import is_usable as is_usable
from snakepit.procfs._table import members_of_group as members_of_group
from snakepit.procfs._table import read_process as read_process
from snakepit.procfs._table import read_status as read_status
from snakepit.procfs._table import send_to as send_to
from snakepit.procfs._table import wait_dead as wait_dead
from snakepit.procfs._tree import end_trees as end_trees
from snakepit.procfs._tree import kill_descendants as kill_descendants
from snakepit.procfs._tree import kill_tree as kill_tree
from snakepit.procfs._tree import wanted_below as wanted_below
