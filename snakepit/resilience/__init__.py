"""Pure deciders: fed with facts and a clock, they say what to do; they do nothing themselves."""

from snakepit.resilience._restarts import RestartBudget as RestartBudget
