"""The scenario `grpc`: calls that do nothing, through gRPC in several ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks._contenders import GRPC, GRPC_ON_ASYNCIO
from benchmarks._grpc_peers import GRPC_PEERS, GRPCLIB
from benchmarks._plan import CALLERS, Plan, make_table
from benchmarks._results import Table
from benchmarks._subjects import gather

NAMES: Final = (GRPC, GRPC_ON_ASYNCIO.name, *(contender.name for contender in GRPC_PEERS))


def over_grpc(plan: Plan) -> Iterator[Table]:
    """One caller, and many, of one worker or server."""
    plan = plan.longer(3)
    with gather(plan.wanted(*NAMES), 1) as company:
        turns = plan.turns(company, "round_trip", seconds=0.1)
        rows = plan.play(turns, company)
        title = "No-op round trip over gRPC, 1 caller, 1 worker or server: the median call"
        yield make_table("grpc", title, rows, company, base=GRPCLIB.name)
        turns = plan.turns(company, "load", seconds=0.1, callers=CALLERS)
        rows = plan.play(turns, company)
        title = f"No-op throughput over gRPC, {CALLERS} callers, 1 worker or server: time per call"
        yield make_table("grpcload", title, rows, company, base=GRPCLIB.name)
