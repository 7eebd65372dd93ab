"""The token: the secret that lets its holder in."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .errors import ServiceRefused

SHORTEST = 16
"""Characters that a token has at least."""


def user_token(path: Path | None = None) -> str:
    """Return the user's token; the first call makes one, in a file that only the user can read.

    Args:
        path: The file. Default: ``lineside/token`` in the user's folder for configuration.

    Raises:
        ServiceRefused: others can read the file, or what is in it is no token.
        OSError: it can be neither read nor made.
    """
    path = path or _config() / "lineside" / "token"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return _read(path)
    token = secrets.token_urlsafe(32)
    with os.fdopen(file, "w") as stream:
        stream.write(token + "\n")
    return token


def checked(token: str) -> str:
    """Return `token`.

    Raises:
        ServiceRefused: it is too short to be a secret, or could not be part of a header.
    """
    if len(token) < SHORTEST or not token.isascii() or not all(one.isalnum() or one in "-_.~" for one in token):
        raise ServiceRefused(
            f"a token of {len(token)} characters: expected at least {SHORTEST} of A-Z a-z 0-9 - _ . ~, "
            "e.g. what secrets.token_urlsafe() returns"
        )
    return token


def _read(path: Path) -> str:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ServiceRefused(
            f"others can read the token in {path} (its mode is {mode:o}); remove the file, and the next start makes one"
        )
    try:
        return checked(path.read_text().strip())
    except ServiceRefused:
        raise ServiceRefused(f"there is no token in {path}; remove the file, the next start makes a new one") from None


def _config() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(folder) if folder.startswith("/") else Path.home() / ".config"
