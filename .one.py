
import sys, logging; sys.path[:0]=['tests/simulation','tests']; logging.disable()
import pytest
from test_simulator_finds_more_bugs import BUGS
from sim_checks import simulate_and_check
mp=pytest.MonkeyPatch()
BUGS["a_session_that_moves_leaves_its_state_behind"][1](mp)
n=0
for seed in range(1200):
    w,p=simulate_and_check(seed)
    if p: print(seed,p); n+=1
print(n)
