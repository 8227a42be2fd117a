"""May a call wait, or could it only wait for itself? Pure.

A call that waits for a worker waits at a *place*: the line of a pool, or that of one worker. The leases
that it can get there have holders, calls that run; and a call that runs may itself wait, for calls
that were made on its behalf and have no worker yet. Where every lease belongs to a call that
waits for the one in question, or to one that likewise waits in vain, nobody will ever move.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import TypeVar

P = TypeVar("P", bound=Hashable)  # a place
C = TypeVar("C", bound=Hashable)  # a call that holds a lease


def could_be_served(
    place: P,
    ancestors: Collection[C],
    holders: Callable[[P], Iterable[C | None]],
    waits_at: Callable[[C], Iterable[P]],
) -> bool:
    """Could a call that waits there get a lease, if those that run and wait for nobody end?

    Args:
        place: where it waits.
        ancestors: the calls that cannot end before it has.
        holders: who holds the leases that can be had at a place; None: one that is free, or soon will be.
        waits_at: where the calls wait that this one cannot end before; all of them must be served.
    """
    if any(holder is None for holder in holders(place)):
        return True  # by far the most
    held: dict[P, list[C | None]] = {}
    needs: dict[C, list[P]] = {}
    found = [place]
    while found:
        here = found.pop()
        if here in held:
            continue
        held[here] = list(holders(here))
        for holder in held[here]:
            if holder is not None and holder not in ancestors and holder not in needs:
                needs[holder] = list(waits_at(holder))
                found += needs[holder]
    served: set[P] = set()
    grew = True
    while grew and place not in served:
        grew = False
        for here, leases in held.items():
            if here not in served and any(
                holder is None or (holder in needs and served.issuperset(needs[holder]))
                for holder in leases
            ):
                served.add(here)
                grew = True
    return place in served
