"""Where a worker that serves any client listens: files of Unix sockets, its own and those of others."""

from __future__ import annotations

import asyncio
import fcntl
import socket
from pathlib import Path

import pytest
from _backends import asyncio_only

from snakepit.grpc import SoundServer
from snakepit.worker._grpc_listen import Listening, listen_as_told


def listening(path: Path) -> Listening:
    return listen_as_told(["--adapter", "some:Adapter", "--listen", f"unix:{path}"])


@pytest.mark.parametrize("is_link", [False, True], ids=["a file", "a link to a file"])
def test_a_file_that_is_no_socket_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_link: bool
) -> None:
    notes = path = tmp_path / "notes"
    notes.write_text("all of it", encoding="ascii")
    if is_link:
        path = tmp_path / "link"
        path.symlink_to(notes)
    with pytest.raises(SystemExit) as ended:
        listening(path)
    assert ended.value.code == 2
    assert "in use" in capsys.readouterr().err
    assert path.is_symlink() == is_link
    assert notes.read_text(encoding="ascii") == "all of it"


def test_a_socket_that_has_taken_its_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    ours = listening(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        ours.remove()
        assert path.exists()
    (listener,) = ours.listeners
    listener.close()


def test_where_the_second_address_fails_nothing_is_left_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "socket", tmp_path / "no such folder" / "socket"
    with pytest.raises(SystemExit):
        listen_as_told(
            ["--adapter", "x", "--listen", f"unix:{first}", "--listen", f"unix:{second}"]
        )
    assert "No such file" in capsys.readouterr().err
    assert not first.exists()


def test_a_path_that_is_too_long_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        listening(tmp_path / ("x" * 108))
    assert ended.value.code == 2
    assert "choose a shorter one, or one relative to" in capsys.readouterr().err


def test_its_own_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    ours = listening(path)
    ours.remove()
    assert not path.exists()
    (listener,) = ours.listeners
    listener.close()


def test_its_own_socket_is_removed_wherever_it_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = listening(Path("socket"))
    monkeypatch.chdir("/")
    ours.remove()
    assert not (tmp_path / "socket").exists()
    (listener,) = ours.listeners
    listener.close()


def test_it_needs_an_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell's variable that is not set, say."""
    with pytest.raises(SystemExit, match="2"):
        listen_as_told(["--adapter", "", "--listen", f"unix:{tmp_path / 'socket'}"])
    assert "--adapter: it is empty" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_two_workers_that_begin_at_once_do_not_take_each_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has bound and does not listen yet: to the other it would look like one that was killed."""
    path = tmp_path / "socket"
    held = []
    bind = Listening._bind

    def bind_and_look(self: Listening, text: str) -> socket.socket:
        made = bind(self, text)
        with open(f"{text}.lock", "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(text)
        return made

    monkeypatch.setattr(Listening, "_bind", bind_and_look)
    (listener,) = listening(path).listeners
    with listener, open(f"{path}.lock", "rb") as file:
        assert held == [str(path)]
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@asyncio_only
async def test_over_tcp_no_small_write_waits_for_others() -> None:
    """asyncio sees to that where it knows that a socket is TCP's."""
    (listener,) = listen_as_told(
        ["--adapter", "some:Adapter", "--listen", "tcp:127.0.0.1:0"]
    ).listeners
    server = SoundServer([])
    await server.start(sock=listener)
    with socket.create_connection(listener.getsockname()):
        while not server.connections:
            await asyncio.sleep(0)
        (transport,) = server.connections.values()
        accepted = transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        await server.drain(0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--listen", "tcp:0.0.0.0:0"], "other machines can reach tcp:0.0.0.0:0"),
        (["--listen", "tcp:localhost:0", "--tls-key", "x"], "need --tls-cert"),
        (["--listen", "unix:"], "neither unix:/path"),
        (
            ["--listen", "unix:/no/such/folder/socket"],
            "/no/such/folder/socket: [Errno 2] No such file",
        ),
        (["--listen", "unix:x", "--token-file", "/no/such/file"], "No such file"),
        (["--listen", "unix:x", "--max-request-mb", "0"], "must be 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        listen_as_told(["--adapter", "some:Adapter", *arguments])
    assert complaint in capsys.readouterr().err


def test_of_several_addresses_the_one_that_cannot_be_had_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        addresses = f"unix:{tmp_path / 'socket'}", f"tcp:127.0.0.1:{port}"
        with pytest.raises(SystemExit, match="2"):
            listen_as_told(["--adapter", "a:B", *(f"--listen={address}" for address in addresses)])
    assert f"--listen tcp:127.0.0.1:{port}: [Errno" in capsys.readouterr().err
