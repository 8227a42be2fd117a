"""A token, certificates and keys as files that somebody has got wrong: the error names the file."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from snakepit.grpc import load_authorities, load_identity, read_token


@pytest.mark.parametrize("text", ["secret", " sec ret\n", "\n!~\r\n"])
def test_white_space_around_a_token_is_cut_off(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, encoding="ascii")
    assert read_token(file, "--token-file") == text.strip()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b" \n", "is empty"),
        ("é".encode(), "is not ASCII"),
        (b"one\ntwo", "more than one line"),
        (b"a\0b", "which no header can carry"),
    ],
)
def test_a_token_that_no_call_can_carry_is_refused(
    tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=says) as raised:
        read_token(file, "--token-file")
    assert str(raised.value).startswith(f"--token-file: {file} ")


def test_nobody_is_asked_for_the_password_of_a_key(tmp_path: Path) -> None:
    """OpenSSL asks at the terminal, and waits."""
    issued = trustme.CA().issue_cert("localhost")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    cert, locked = tmp_path / "cert.pem", tmp_path / "locked.key"
    issued.cert_chain_pems[0].write_to_path(cert)
    secret = BestAvailableEncryption(b"password")
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ValueError, match="the key is encrypted") as raised:
        load_identity(context, cert, locked, "--tls-cert, --tls-key")
    assert str(locked) in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(
        ValueError, match=rf"Connect\.tls_ca \({tmp_path}/no\.pem\): .*No such file"
    ):
        load_authorities(context, tmp_path / "no.pem", "Connect.tls_ca")
    with pytest.raises(ValueError, match=rf"Connect\.tls_cert \({tmp_path}/no\.pem\)"):
        load_identity(context, tmp_path / "no.pem", None, "Connect.tls_cert")
