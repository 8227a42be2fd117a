"""A worker that nobody spawned, and clients that know nothing of snakepit but protos/.

One worker and one client for all of it; each test looks at what the client saw of one thing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SERVING = 1  # of grpc.health.v1
ADD_MORE = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}


@contextmanager
def served(*arguments: str) -> Generator[subprocess.Popen[str]]:
    """A worker that serves, from when it says so; ended by SIGTERM, with exit code 0."""
    argv = [sys.executable, "-m", "snakepit.worker", "--adapter", "interop_adapter:Interop"]
    with subprocess.Popen(
        [*argv, *arguments], env=os.environ | ADD_MORE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line.startswith("snakepit worker: serves"), line + process.stderr.read()
            process.told = line  # type: ignore[attr-defined]
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0, process.stderr.read()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def saw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw, step by step."""
    folder = tmp_path_factory.mktemp("interop")
    stubs = folder / "stubs"
    stubs.mkdir()
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}"]
    outputs = [f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
    subprocess.run([*compiler, *outputs, "snakepit/v1/worker.proto"], check=True, timeout=30)
    for package in ("snakepit", "snakepit/v1"):
        (stubs / package / "__init__.py").touch()
    token, socket = folder / "token", folder / "worker.sock"
    token.write_text("a secret\n", encoding="ascii")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = folder / "worker.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    client = [sys.executable, str(HERE / "grpcio_client.py"), str(stubs), f"unix:{socket}"]
    tls = ("--listen", "tcp:127.0.0.1:0", "--tls-cert", str(certificate))
    with served("--listen", f"unix:{socket}", *tls, "--token-file", str(token)) as process:
        assert socket.stat().st_mode & 0o777 == 0o600
        tcp = process.told.rpartition("tcp:")[2].strip()  # type: ignore[attr-defined]
        run = subprocess.run(
            [*client, tcp, "a secret", str(ROOT / "docs" / "grpc.md")],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert not socket.exists()
    assert run.returncode == 0, run.stderr
    print(run.stderr)
    seen: dict[str, Any] = json.loads(run.stdout)
    return seen


def test_it_lists_the_tools(saw: dict[str, Any]) -> None:
    assert saw["list_tools"] == {
        "names": [
            "a_set", "add", "ask_host", "blobs", "count", "echo", "fail", "open_and_add", "remember", "sleep",
            "time_left", "trace", "traces",
        ],
        "add": ["Add two numbers.", False, True, ["left"]],
        "count": True,
    }  # fmt: skip


def test_it_executes_in_json_and_in_msgpack(saw: dict[str, Any]) -> None:
    assert saw["execute"] == {
        "add": 3,
        "echo": True,
        "msgpack": True,
        "host": "ToolNotFoundError",
        "sessions": [[0], [0, 1], [2]],
    }


def test_each_kind_of_failure_has_its_status_and_its_detail(saw: dict[str, Any]) -> None:
    errors = saw["errors"]
    assert errors["tool"] == [
        "UNKNOWN", "tool", "builtins.FileNotFoundError",
        "FileNotFoundError: [Errno 2] gone: 'some/file'",
    ]  # fmt: skip
    assert errors["not_found"][:2] == ["NOT_FOUND", "not_found"]
    assert "'add'" in errors["not_found"][3]
    assert errors["params"][:2] == ["INVALID_ARGUMENT", "params"]
    assert errors["no_json"][:2] == ["INTERNAL", "serialization"]
    assert "ask with msgpack" in errors["no_json"][3]
    assert errors["no_msgpack"][0] == "INVALID_ARGUMENT"
    assert errors["compressed"] == "UNIMPLEMENTED"
    assert errors["not_a_stream"][:2] == ["INVALID_ARGUMENT", "params"]
    assert errors["still_there"] == 2


def test_it_streams_and_leaving_early_closes_the_generator(saw: dict[str, Any]) -> None:
    assert saw["stream"] == {"items": list(range(100)), "first": [0, 1, 2], "closed": True}


def test_a_call_that_is_cancelled_is_interrupted_where_it_stands(saw: dict[str, Any]) -> None:
    assert saw["cancel"] == {"begun": True, "ended": True, "next": 2}


def test_a_deadline_is_seen_by_the_tool_and_ends_it(saw: dict[str, Any]) -> None:
    assert saw["deadline"] == {
        "code": "DEADLINE_EXCEEDED", "left": True, "none": None, "ended": True, "next": 2,
    }  # fmt: skip


def test_a_tool_knows_of_the_trace_that_the_metadata_name(saw: dict[str, Any]) -> None:
    parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    whole = parent | {"tracestate": "a=1,b=2"}
    assert saw["trace"] == {
        "whole": whole, "streams": [whole], "parent": parent, "nonsense": {}, "none": {},
    }  # fmt: skip


def test_64_mib_go_there_and_back(saw: dict[str, Any]) -> None:
    assert saw["large"]["same"] is True


def test_150_calls_that_hang_leave_room_for_a_health_check(saw: dict[str, Any]) -> None:
    assert saw["many"] == {"begun": True, "health": SERVING, "next": 2}


def test_a_storm_of_cancelled_calls_leaves_room_for_a_large_one(saw: dict[str, Any]) -> None:
    assert saw["storm"] == {"same": True}


def test_a_client_that_never_reads_holds_up_no_health_check(saw: dict[str, Any]) -> None:
    assert saw["unread"] == {"health": SERVING, "next": 2}


def test_health_is_checked_and_watched(saw: dict[str, Any]) -> None:
    assert saw["check_health"] == {"check": SERVING, "watch": SERVING, "unknown": "NOT_FOUND"}


def test_reflection_tells_services_methods_and_fields(saw: dict[str, Any]) -> None:
    assert saw["reflection"] == {
        "services": [
            "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "snakepit.v1.Worker",
        ],
        "inner": ["grpc/health/v1/health.proto", "google/protobuf/struct.proto"],
        "methods": ["Connect", "Execute", "ExecuteStream", "ListTools"],
        "fields": ["tool", "params", "session"],
    }  # fmt: skip


def test_no_call_gets_in_without_the_token(saw: dict[str, Any]) -> None:
    assert saw["token"] == ["UNAUTHENTICATED", "UNAUTHENTICATED"]


def test_what_the_document_shows_works_with_tls_too(saw: dict[str, Any]) -> None:
    assert saw["document"] == ["hello", "hello"]
