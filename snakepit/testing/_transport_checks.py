"""What every transport promises: on messages, so it holds whatever carries them."""

from __future__ import annotations

from typing import Final

from snakepit.testing._check import Check
from snakepit.testing._ending_checks import ENDING_CHECKS
from snakepit.testing._message_checks import MESSAGE_CHECKS
from snakepit.testing._pair import OpenPair

TRANSPORT_CHECKS: Final[tuple[Check[OpenPair], ...]] = (*MESSAGE_CHECKS, *ENDING_CHECKS)
"""What every transport promises, one check each."""
