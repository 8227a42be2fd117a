"""The files that a connection needs, on either side: a token, certificates, their keys.

Errors name the option and the file: those of ssl tell neither.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NoReturn, TypeAlias

File: TypeAlias = str | os.PathLike[str]


def read_token(path: File, option: str) -> str:
    """The token in this file. Raises OSError, ValueError."""
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{option}: {path} is not ASCII") from None
    if not token:
        raise ValueError(f"{option}: {path} is empty")
    if not token.isprintable():
        raise ValueError(f"{option}: {path} is more than one line, which no header can carry")
    return token


def load_identity(context: ssl.SSLContext, cert: File, key: File | None, options: str) -> None:
    """Our certificate, and its key. Raises ValueError."""
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        files = str(cert) if key is None else f"{cert}, {key}"
        raise ValueError(f"{options} ({files}): {error}") from error


def load_authorities(context: ssl.SSLContext, path: File, option: str) -> None:
    """Who may have signed the certificate of the other side. Raises ValueError."""
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{option} ({path}): {error}") from error


def _no_password() -> NoReturn:
    """OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted; there is nobody here who could be asked for a password")
