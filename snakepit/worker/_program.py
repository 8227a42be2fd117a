"""What a worker process does, from Hello to its exit code; `__main__.py` starts it.

The adapter is named by the host's Start message, or, where the host cannot know it (a worker
behind `ssh`, say), by the one argument. With `--listen` it serves any gRPC client instead, see
`_grpc_serving.py`.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
from threading import Thread
from types import FrameType

from snakepit.errors import ProtocolError
from snakepit.procfs import DUMP_ALL, DUMP_MAIN, Handle
from snakepit.protocol import PROTOCOL_VERSION, Goodbye, Hello, Start, ToWorker, describe
from snakepit.worker._execution import Execution
from snakepit.worker._host_calls import HostCalls
from snakepit.worker._host_watch import HostGoneError, bind_to_host, watch
from snakepit.worker._interrupt import INTERRUPT_SIGNAL, Interrupt
from snakepit.worker._lane import Lane, MainLane
from snakepit.worker._offer import Offer, build, could_not_start
from snakepit.worker._offspring import Offspring
from snakepit.worker._reader import HOST_GONE, ORPHAN_EXIT_CODE, Reader
from snakepit.worker._service import Service
from snakepit.worker._target import Target, add_import_paths, load_main, load_target
from snakepit.worker._wire import (
    Wire,
    complain,
    complain_if_heard,
    end_without_grpc,
    fill_standard_fds,
    flush_streams,
    open_wire,
)

ENDS = (signal.SIGTERM, signal.SIGINT)  # what ends a worker that is nobody's


class EndsEarlyError(SystemExit):
    """A worker that is nobody's was told to end before it was ready: it goes, with 0."""


def run(argv: list[str]) -> int:
    """Serve one host; return the exit code."""
    serves_all = any(argument.partition("=")[0] == "--listen" for argument in argv)
    if not serves_all and (len(argv) > 1 or (argv and argv[0].startswith("-"))):
        complain(
            "usage: python -m snakepit.worker [ADAPTER]; speaks the protocol on stdin and stdout. "
            "Or: python -m snakepit.worker --adapter ADAPTER --listen ADDRESS; serves gRPC"
        )
        return 2
    if serves_all:
        fill_standard_fds()
    try:
        host = bind_to_host()
    except HostGoneError:
        complain_if_heard(HOST_GONE)
        return ORPHAN_EXIT_CODE
    wire = _open_serving_wire(argv) if serves_all else open_wire()
    offspring = Offspring()
    offspring.adopt()
    wire.last_act = offspring.end_all
    atexit.register(offspring.end_all)  # the first to be registered is the last to be called
    _reset_in_forked_children()
    faulthandler.register(DUMP_ALL, all_threads=True)
    if DUMP_MAIN is not None:
        # The kernel has the main thread take it.
        faulthandler.register(DUMP_MAIN, all_threads=False)
    if not wire.has_own_host:
        signal.signal(signal.SIGINT, lambda *_: None)  # the terminal's Ctrl+C belongs to the host
    try:
        wire.send(Hello(PROTOCOL_VERSION, os.getpid(), f"python {sys.version.split()[0]}"))
        start, early = _await_start(wire)
        if start is None:
            return 1
        spec = argv[0] if argv and not serves_all else start.adapter
        return _serve(wire, start, early, spec, host, offspring)
    except OSError:
        return 1
    finally:
        wire.finish()


def _open_serving_wire(argv: list[str]) -> Wire:
    def end_early(*_: object) -> None:
        raise EndsEarlyError

    for number in ENDS:
        signal.signal(number, end_early)
    try:
        from snakepit.worker._grpc_serving import open_serving_wire
    except ModuleNotFoundError as error:
        end_without_grpc(error)
    return open_serving_wire(argv)


def _serve(
    wire: Wire,
    start: Start,
    early: list[ToWorker],
    adapter_spec: str,
    host: Handle | None,
    offspring: Offspring,
) -> int:
    interrupt = Interrupt()
    wire.protect(interrupt.seams)
    interrupt.install()
    try:
        offer = _make_offer(start, adapter_spec, takes_pickles=not wire.has_own_host)
    except EndsEarlyError:
        return 0
    except BaseException as error:
        return _could_not_start(wire, error)
    reader = Reader(wire)
    reader.last_act, reader.reap = offspring.end_all, offspring.reap_adopted
    host_calls = HostCalls(wire, interrupt, reader.wait_anywhere)
    execution = Execution(wire, interrupt, offer.callable, reader.wait, host_calls=host_calls)
    lane = _choose_lane(start, execution, reader, interrupt, offer)
    service = Service(wire, lane, interrupt, offer.callable, cancel_grace_s=start.cancel_grace_s)
    service.grace_of = wire.grace_of
    execution.end_started = lambda job: offspring.end_since(job.begun, service.cancel_grace_s(job))
    service.before_cancel = offspring.look
    service.signal_started = lambda job, number: offspring.signal_since(
        job.begun, number, lambda: lane.running is job
    )
    reader.service = service

    is_ready = False

    def ready() -> None:
        nonlocal is_ready
        offspring.keep()
        wire.send(offer.ready())
        is_ready = True

    def terminate(_signal: int, frame: FrameType | None) -> None:
        if not lane.started:
            raise EndsEarlyError if wire.has_own_host else SystemExit(128 + signal.SIGTERM)
        if wire.begin_drain():
            return
        service.terminate()
        reader.interrupt()
        if interrupt.is_in_user_code(frame):
            interrupt.raise_if_due()

    for number in ENDS if wire.has_own_host else ENDS[:1]:
        signal.signal(number, terminate)
    if host is not None:
        watch(host, reader.end_orphan)
    alone = not isinstance(lane, MainLane)
    Thread(
        target=reader.serve, args=(early,), kwargs={"alone": alone}, name="snakepit-io", daemon=True
    ).start()
    try:
        lane.run(ready)
    except EndsEarlyError:
        reader.retire()
        return 0
    except BaseException as error:
        if not is_ready:
            return _could_not_start(wire, error)
        complain(f"it ends because of an error:\n{describe(error).traceback}")
        return 1
    finally:
        signal.signal(signal.SIGTERM, lambda *_: _end_now(offspring))
        flush_streams()
    wire.send(Goodbye())
    return 0


def _end_now(offspring: Offspring) -> None:
    """SIGTERM when the tools have stopped: do not wait for what threads and hooks still do."""
    offspring.end_all()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _await_start(wire: Wire) -> tuple[Start | None, list[ToWorker]]:
    try:
        while (messages := wire.receive()) is not None:
            if messages:
                if not isinstance(messages[0], Start):
                    complain("the host did not say Start")
                    break
                return messages[0], messages[1:]
    except ProtocolError as error:
        complain(str(error))
    return None, []


def _make_offer(start: Start, spec: str, *, takes_pickles: bool) -> Offer:
    add_import_paths(start.import_paths)
    adapter = None
    if spec:
        adapter = build(load_target(Target(spec, start.main_path, start.main_module)), start)
    main = start.main_path, start.main_module
    return Offer(adapter, (lambda: load_main(*main)) if takes_pickles else None)


def _choose_lane(
    start: Start, execution: Execution, reader: Reader, interrupt: Interrupt, offer: Offer
) -> Lane:
    if not offer.is_async():
        return MainLane(execution, reader, *offer.hooks)
    from snakepit.worker._loop_lanes import AsyncioLane, TrioLane

    kind = TrioLane if start.tool_backend == "trio" else AsyncioLane
    return kind(execution, interrupt, *offer.hooks)


def _could_not_start(wire: Wire, error: BaseException) -> int:
    wire.send(could_not_start(error))
    return 1


def _reset_in_forked_children() -> None:
    """A child that a tool forks is an ordinary process: our signal handlers are not for it."""

    def reset() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, INTERRUPT_SIGNAL):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    os.register_at_fork(after_in_child=reset)
