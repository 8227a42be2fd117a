"""Which calls have killed workers, and which of them are not run again.

A call is *suspect* from the first worker that died during it. Each further death during the same
call (see `_fingerprint.py`) adds one to its kills; an answer to it, be it an error, clears it; and
it is forgotten when no worker has died of it for `window_s`. With `quarantine_after` kills it
is in quarantine: so a call that always kills costs that many workers in a window, and no more.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from snakepit.resilience._fingerprint import Fingerprint, Shape

SUSPECTS_MAX: Final = 1000  # the one that has not killed for longest is forgotten for another


class Suspect:
    """A call that has killed workers. `doubtful`: so many of its kills may come from outside."""

    __slots__ = ("certificate", "digest", "doubtful", "kills", "last_at", "shape")

    def __init__(self, call: Fingerprint) -> None:
        self.shape: Shape = call.shape
        self.digest: bytes = call.digest
        self.kills: int = 0
        self.doubtful: int = 0
        self.last_at: float = 0.0
        self.certificate: str = ""  # of the last death


class Quarantine:
    """The suspects of one pool, the one that killed last at the end.

    `suspects` is empty as long as no worker dies of a call, and always where `quarantine_after` is None.
    """

    def __init__(self, *, quarantine_after: int | None, window_s: float) -> None:
        self._after, self._window_s = quarantine_after, window_s
        self.suspects: OrderedDict[bytes, Suspect] = OrderedDict()
        self._shapes: Counter[Shape] = Counter()

    def find(self, call: Fingerprint, now: float) -> Suspect | None:
        """What is known of such a call."""
        while self.suspects:
            oldest = next(iter(self.suspects.values()))
            if oldest.last_at > now - self._window_s:
                break
            self._remove(oldest)
        return self.suspects.get(call.digest) if call.shape in self._shapes else None

    def refuses(self, suspect: Suspect) -> bool:
        """Is it in quarantine?"""
        return self._after is not None and suspect.kills >= self._after

    def seconds_left(self, suspect: Suspect, now: float) -> float:
        """Until it may be run again."""
        return max(0.0, suspect.last_at + self._window_s - now)

    def killed(
        self,
        call: Fingerprint,
        now: float,
        *,
        known: Suspect | None = None,
        doubtful: bool = False,
        certificate: str = "",
    ) -> Suspect | None:
        """A worker has died during such a call. None where nothing is kept in quarantine.

        `known`: what was known of it when this run of it began; so a call that takes longer than the
        window before it kills is not taken for a new one each time.
        """
        if self._after is None:
            return None
        suspect = self.find(call, now) or known or Suspect(call)
        if self.suspects.pop(suspect.digest, None) is None:
            self._shapes[suspect.shape] += 1
        self.suspects[suspect.digest] = suspect
        suspect.kills += 1
        suspect.doubtful += doubtful
        suspect.last_at, suspect.certificate = now, certificate
        if len(self.suspects) > SUSPECTS_MAX:
            self._remove(next(iter(self.suspects.values())))
        return suspect

    def answered(self, suspect: Suspect) -> None:
        """Such a call came to its end, and its worker lives: it is suspect no more."""
        suspect.kills = suspect.doubtful = 0
        if self.suspects.get(suspect.digest) is suspect:
            self._remove(suspect)

    def killer_seen(self) -> None:
        """Somebody outside kills workers, those without a call, too: doubtful kills do not count."""
        for suspect in list(self.suspects.values()):
            suspect.kills -= suspect.doubtful
            suspect.doubtful = 0
            if not suspect.kills:
                self._remove(suspect)

    def _remove(self, suspect: Suspect) -> None:
        del self.suspects[suspect.digest]
        self._shapes[suspect.shape] -= 1
        if not self._shapes[suspect.shape]:
            del self._shapes[suspect.shape]
