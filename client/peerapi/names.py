"""Names of files that peers send: what may be one, and the next one where a name is taken. Pure.

Source: tailscale feature/taildrop/taildrop.go: both ends refuse the same names.
"""

from __future__ import annotations

import re
import unicodedata

from client.errors import ClientError

PARTIAL = ".partial"
RESERVED = (PARTIAL, ".deleted")
MAX_NAME_BYTES = 255  # of a file system
FORBIDDEN = frozenset('/\\:*"<>|')
GRAPHIC = frozenset("LMNPS")  # Unicode's letters, marks, numbers, punctuation, symbols
EXTENSIONS = re.compile(r"(\.[a-zA-Z0-9]{0,3}[a-zA-Z][a-zA-Z0-9]{0,3})*$")
NUMBERED = re.compile(r"(.*) \(([0-9]{1,9})\)", re.DOTALL)


class InvalidName(ClientError):
    """A file cannot have this name."""

    code = "invalid-name"

    def __init__(self) -> None:
        super().__init__("invalid filename")


def check_name(name: str) -> str:
    """``name``, if a file may bear it; raises :class:`InvalidName`."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName from None
    if not name or size > MAX_NAME_BYTES or name.strip() != name or name in (".", ".."):
        raise InvalidName
    if name.endswith(RESERVED) or not all(map(_may_stand, name)):
        raise InvalidName
    return name


def _may_stand(character: str) -> bool:
    category = unicodedata.category(character)
    return character not in FORBIDDEN and (category[0] in GRAPHIC or category == "Zs")


def partial_name(name: str, sender: str) -> str:
    """The name while it is on its way from the node ``sender`` (a StableID); raises :class:`InvalidName`.

    A peer lists and resumes the files of its own ID only.
    """
    return _whole(f"{check_name(name)}{_suffix(sender)}")


def is_from(partial: str, sender: str) -> bool:
    return partial.endswith(_suffix(sender))


def is_partial(name: str) -> bool:
    return name.endswith(PARTIAL)


def _suffix(sender: str) -> str:
    if not sender or not (sender.isascii() and sender.isalnum()):
        raise InvalidName  # the ID is the server's word: it must not become a path
    return f".{sender}{PARTIAL}"


def _whole(name: str) -> str:
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidName
    return name


def next_name(name: str) -> str:
    """``a.jpg``, ``a (1).jpg``, ``a (2).jpg`` …"""
    found = EXTENSIONS.search(name, 1)
    extension = found[0] if found else ""
    stem, number = name.removesuffix(extension), 0
    if numbered := NUMBERED.fullmatch(stem):
        stem, number = numbered[1], int(numbered[2])
    return f"{stem} ({number + 1}){extension}"
