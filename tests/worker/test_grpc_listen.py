"""Where a worker that serves any client listens: files of Unix sockets, its own and those of others."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

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


def test_its_own_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    ours = listening(path)
    ours.remove()
    assert not path.exists()
    (listener,) = ours.listeners
    listener.close()
