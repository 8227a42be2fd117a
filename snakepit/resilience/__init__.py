"""Pure deciders: fed with facts and a clock, they say what to do; they do nothing themselves."""

from snakepit.resilience._blame import Blame as Blame
from snakepit.resilience._blame import Death as Death
from snakepit.resilience._fingerprint import Fingerprint as Fingerprint
from snakepit.resilience._quarantine import Quarantine as Quarantine
from snakepit.resilience._quarantine import Suspect as Suspect
from snakepit.resilience._restarts import RestartBudget as RestartBudget
