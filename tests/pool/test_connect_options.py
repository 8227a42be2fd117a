"""What `connect` takes, and what goes with it: nothing is connected to here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from _backends import one_loop_each
from pool_kit import all_gone, pids, tools_pool

from snakepit import ConfigError, Connect, open_pool
from snakepit._address import UNIX_PATH_BYTES_MAX, Address
from snakepit.launchers import _grpc_connected
from snakepit.launchers._grpc_connected import ConnectLauncher

FAR = "tcp:worker.example:50051"


@pytest.mark.parametrize(
    ("connect", "beside", "says"),
    [
        ([], {}, "one or more of 'unix:/path' and 'tcp:HOST:PORT'"),
        ("unix:/a", {}, "in a sequence"),
        (["/a"], {}, "'unix:/path'"),
        (["tcp:localhost"], {}, "'tcp:HOST:PORT'"),
        (["tcp:localhost:65536"], {}, "'tcp:HOST:PORT'"),
        ([1], {}, "'unix:/path'"),
        (["unix:/a", "unix:/a"], {}, "each address once"),
        ([FAR], {}, "tls_ca='ca.pem'"),
        (["unix:/a"], {"adapter": "some:Adapter"}, "from its command line"),
        (["unix:/a"], {"command": ["worker"]}, "one or the other"),
        (["unix:/a"], {"size": 1}, "as many workers as addresses"),
        (["unix:/a"], {"min_ready": 2}, "from 0 to size (1)"),
        (["unix:/a"], {"transport": "stdio"}, "'grpc' or 'auto' with connect"),
        (["unix:/a"], {"python": "python3"}, "nothing with connect"),
        (["unix:/a"], {"adapter_args": (1,)}, "nothing with connect"),
        (["unix:/a"], {"env": {"A": "b"}}, "nothing with connect"),
        (["unix:/a"], {"cwd": "/"}, "nothing with connect"),
        (["unix:/a"], {"tool_backend": "trio"}, "nothing with connect"),
    ],
)
@one_loop_each
async def test_what_makes_no_sense_is_refused_with_a_word_on_what_does(
    connect: Any, beside: dict[str, Any], says: str
) -> None:
    adapter = beside.pop("adapter", None)
    with pytest.raises(ConfigError) as caught:
        async with open_pool(adapter, connect=connect, **beside):
            pass
    assert says in str(caught.value)


@one_loop_each
async def test_nothing_is_guessed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster, or under a service manager: without `connect` the pool owns its workers."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("INVOCATION_ID", "1")
    async with tools_pool() as pool:
        assert [worker.address for worker in pool.workers()] == [None]
        found = pids(pool)
    assert all_gone(found)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"tls_cert": "a.pem"}, "nothing without tls_ca"),
        ({"tls_ca": "a.pem", "tls_key": "a.pem"}, "nothing without tls_cert"),
        ({"tls_name": "a"}, "nothing without tls_ca"),
        ({"token_file": 1}, "the path of a file"),
        ({"tls_ca": "a.pem", "tls_name": ""}, "the name of a host"),
    ],
)
def test_files_that_make_no_sense_are_refused(files: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Connect(["tcp:localhost:1"], **files)


def test_addresses_are_read_as_they_are_written() -> None:
    texts = ("unix:/a b:c", "tcp:localhost:1", "tcp:[::1]:2", "tcp:127.0.0.1:65535")
    assert tuple(map(str, Connect(texts).addresses)) == texts


def test_a_path_that_no_socket_can_have_is_refused() -> None:
    longest = "x" * UNIX_PATH_BYTES_MAX
    assert Connect([f"unix:{longest}"]).addresses[0].path == longest
    with pytest.raises(ConfigError, match=f"at most {UNIX_PATH_BYTES_MAX} bytes"):
        Connect([f"unix:{longest}x"])


def test_each_place_is_known_to_its_worker_by_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that it takes the place of its own lost connection, and not that of its neighbour."""
    names = []

    def dial(_connect: Connect, _address: Address, pool: str) -> AbstractContextManager[object]:
        names.append(pool)
        return nullcontext(object())

    monkeypatch.setattr(_grpc_connected, "dial", dial)
    launcher = ConnectLauncher(Connect(["unix:/run/worker", "unix:/var/run/worker"]))
    for slot in (1, 2, 1):
        with launcher.launch("w", slot):
            pass
    assert names[0] == names[2] != names[1]
