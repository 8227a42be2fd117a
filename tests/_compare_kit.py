"""Facts of `make compare` with which all is well."""

from typing import Any

from compare._contenders import EVERYONE
from compare._results import Results

WELL: dict[str, dict[str, Any]] = {
    "kill": {
        "told": "WorkerDiedError",
        "truthful": True,
        "neighbour": "survives",
        "pool": "usable",
    },
    "cancel": {"left_s": 0.01, "computing": False, "neighbour": "survives", "pool": "usable"},
    "grandchild": {"left_s": 0.1, "lives": False, "stops": "a call"},
    "exception": {"told": "original", "pool": "usable"},
    "orphans": {"workers": [0, 0, 0], "others": [0, 0, 0], "ended_s": 0.1},
    "raw": {"told": "a value", "pool": "usable"},
    "keep": {"left_s": 0.01, "loaded": "yes"},
    "gil": {"ended_s": 3.1, "left_s": 3.12, "neighbour": "survives", "pool": "usable"},
}


def all_well() -> Results:
    facts = {name: {what: dict(how) for what, how in WELL.items()} for name in EVERYONE}
    return Results("1 May 2030", "a machine", facts)
