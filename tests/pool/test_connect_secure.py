"""Who may call a worker that others can reach: TLS, client certificates, tokens, and other users."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from _backends import one_loop_each
from connecting import worker
from pool_kit import PATIENCE_S

from snakepit import Connect, Pool, WorkerStartError, open_pool
from snakepit.worker._grpc_listen import listen_as_told

TOKEN = "a secret"


class Files:
    """PEM files and tokens, and the addresses of two workers that were given them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ours, strangers = trustme.CA(), trustme.CA()
        self.ca = self._write("ca.pem", ours.cert_pem.bytes())
        self.other_ca = self._write("other_ca.pem", strangers.cert_pem.bytes())
        names = "localhost", "127.0.0.1", "worker.example"
        for name, issuer in (("worker", ours), ("host", ours), ("stranger", strangers)):
            issued = issuer.issue_cert(*names)
            chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
            setattr(self, name, self._write(f"{name}.pem", chain))
            setattr(self, f"{name}_key", self._write(f"{name}.key", issued.private_key_pem.bytes()))
        self.token = self._write("token", f"{TOKEN}\n".encode())
        self.wrong_token = self._write("wrong_token", b"another secret")
        self.worker_options = "--tls-cert", self.worker, "--tls-key", self.worker_key
        self.mutual = self.by_token = ""

    worker: str
    worker_key: str
    host: str
    host_key: str
    stranger: str
    stranger_key: str

    def _write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.touch(0o600)
        path.write_bytes(content)
        return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Generator[Files]:
    made = Files(tmp_path_factory.mktemp("secrets"))
    mutual = "--listen", "tcp:127.0.0.1:0", "--tls-client-ca", made.ca
    by_token = "--listen", "tcp:0.0.0.0:0", "--token-file", made.token
    with (
        worker(*made.worker_options, *mutual) as made.mutual,
        worker(*made.worker_options, *by_token) as everywhere,
    ):
        made.by_token = everywhere.replace("0.0.0.0", "127.0.0.1")
        yield made


@asynccontextmanager
async def connected(address: str, **files: Any) -> AsyncGenerator[Pool]:
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(connect=Connect([address], **files)) as pool:
            yield pool


async def test_both_sides_show_certificates(files: Files) -> None:
    mine = {"tls_ca": files.ca, "tls_cert": files.host, "tls_key": files.host_key}
    async with connected(files.mutual, **mine) as pool:
        value = os.urandom(2**20)
        assert await pool.execute("echo", {"value": value}) == value


async def test_a_token_in_tls_will_do(files: Files) -> None:
    async with connected(files.by_token, tls_ca=files.ca, token_file=files.token) as pool:
        assert await pool.execute("add", {"left": 1}) == 2
    named = {"tls_ca": files.ca, "tls_name": "worker.example", "token_file": files.token}
    async with connected(files.by_token, **named) as pool:
        assert await pool.execute("add", {"left": 1}) == 2


@pytest.mark.parametrize(
    ("which", "shown", "says"),
    [
        ("mutual", {}, ""),
        ("mutual", {"tls_ca": "ca"}, ""),
        ("mutual", {"tls_ca": "ca", "tls_cert": "stranger", "tls_key": "stranger_key"}, ""),
        ("mutual", {"tls_ca": "other_ca"}, "CERTIFICATE_VERIFY_FAILED"),
        ("by_token", {"tls_ca": "other_ca", "token_file": "token"}, "CERTIFICATE_VERIFY_FAILED"),
        ("by_token", {"tls_ca": "ca"}, "UNAUTHENTICATED"),
        ("by_token", {"tls_ca": "ca", "token_file": "wrong_token"}, "UNAUTHENTICATED"),
        ("by_token", {"token_file": "token"}, ""),
        ("by_token", {"tls_ca": "host_key", "token_file": "token"}, "NO_CERTIFICATE"),
    ],
)
@one_loop_each
async def test_whoever_shows_something_else_gets_nothing(
    files: Files, which: str, shown: dict[str, str], says: str
) -> None:
    given = {option: getattr(files, name) for option, name in shown.items()}
    address = getattr(files, which)
    with pytest.raises(WorkerStartError) as caught:
        async with connected(address, **given):
            pass
    assert caught.value.reason.startswith(f"cannot connect to {address}: ")
    assert says in caught.value.reason


@one_loop_each
async def test_a_certificate_for_another_name_is_refused(files: Files) -> None:
    named = {"tls_ca": files.ca, "tls_name": "another.example", "token_file": files.token}
    with pytest.raises(WorkerStartError, match=r"another\.example"):
        async with connected(files.by_token, **named):
            pass


@one_loop_each
async def test_files_are_read_anew_for_each_connection(files: Files, tmp_path: Path) -> None:
    token = tmp_path / "token"
    options = {"tls_ca": files.ca, "token_file": str(token)}
    connect = Connect([files.by_token], **options)
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(connect=connect, min_ready=0) as pool:
            with pytest.raises(WorkerStartError, match="No such file"):
                await pool.ready()
            token.write_text("")
            await _until_reason(pool, "is empty")
            token.write_text(TOKEN)
            assert await pool.execute("add", {"left": 1}) == 2


async def _until_reason(pool: Pool, words: str) -> None:
    while True:
        try:
            await pool.ready()
        except WorkerStartError as error:
            if words in error.reason:
                return
        await anyio.sleep(0.01)


OTHER = """
import os, sys
import grpc

address, ca, token_file, token = sys.argv[1:]
channel = grpc.secure_channel(address.removeprefix("tcp:"), grpc.ssl_channel_credentials(open(ca, "rb").read()))
os.setgid(65534)
os.setuid(65534)
try:
    open(token_file)
except PermissionError:
    print("unreadable")
list_tools = channel.unary_unary("/snakepit.v1.Worker/ListTools")
connect = channel.stream_stream("/snakepit.v1.Worker/Connect")
for call in (lambda: list_tools(b""), lambda: next(connect(iter([b""])))):
    try:
        call()
    except grpc.RpcError as error:
        print(error.code().name)
print(b"add" in list_tools(b"", metadata=[("snakepit-token", token)]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs unprivileged user namespaces")
def test_another_user_reaches_the_port_and_gets_nothing_without_the_token(files: Files) -> None:
    """With a client of another make; and with the token it is served."""
    run = subprocess.run(
        [sys.executable, "-c", OTHER, files.by_token, files.ca, files.token, TOKEN],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert run.stdout.split() == ["unreadable", "UNAUTHENTICATED", "UNAUTHENTICATED", "True"], (
        run.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tls-cert", "worker", "--tls-key", "worker_key"], "and one of --tls-client-ca and --token-file"),
        (["--token-file", "token"], "it takes --tls-cert and --tls-key"),
        (["--tls-cert", "worker", "--tls-key", "host_key", "--token-file", "token"], "KEY_VALUES_MISMATCH"),
        (["--tls-cert", "worker", "--tls-key", "worker_key", "--tls-client-ca", "token"], "--tls-client-ca"),
    ],
)  # fmt: skip
def test_a_worker_does_not_listen_where_it_would_not_be_safe(
    files: Files, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word if word.startswith("--") else getattr(files, word) for word in arguments]
    with pytest.raises(SystemExit, match="2"):
        listen_as_told(["--adapter", "some:Adapter", "--listen", "tcp:0.0.0.0:0", *given])
    assert complaint in re.sub(r"\s+", " ", capsys.readouterr().err)
