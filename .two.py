import sys, logging, faulthandler; sys.path[:0]=['tests/simulation','tests']; logging.disable()
import pytest
from test_simulator_finds_bugs import BUGS
from sim_checks import simulate_and_check
mp=pytest.MonkeyPatch()
BUGS["calls_that_come_back_are_lost"](mp)

import signal,trio,collections
c=collections.Counter()
class I(trio.abc.Instrument):
    n=0
    def after_task_step(self, task):
        I.n+=1
        if I.n>100000: c[task.name, trio.current_time()]+=1
        if I.n>120000:
            print(c.most_common(5)); import os; sys.stdout.flush(); os._exit(1)
import sim_run
rs=sim_run.run_seeded
sim_run.run_seeded=lambda *a,**k: rs(*a,instruments=(I(),),**k)

w,p=simulate_and_check(int(sys.argv[1]))
print(p)
