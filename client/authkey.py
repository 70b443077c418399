"""An auth key as typed, or from ``file:PATH``, which keeps it out of process lists and shell histories."""

from __future__ import annotations

from pathlib import Path

from client.errors import PrefsError

FILE_PREFIX = "file:"
MAX_KEY_FILE = 4096


def read_auth_key(text: str) -> str:
    """The key itself; raises :class:`PrefsError`, never showing the key."""
    if not text.startswith(FILE_PREFIX):
        key = text.strip()
    else:
        path = Path(text.removeprefix(FILE_PREFIX))
        try:
            with path.open() as file:
                key = file.read(MAX_KEY_FILE).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise PrefsError(f"cannot read the auth key from {path}: {why}") from error
        if not key:
            raise PrefsError(f"the auth key file {path} is empty")
    if any(character.isspace() or not character.isprintable() for character in key):
        raise PrefsError("the auth key has blanks or odd characters in it: was it copied whole?")
    return key
