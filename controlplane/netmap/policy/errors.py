"""What is wrong with a policy file, and where."""

from __future__ import annotations


class PolicyError(Exception):
    """A policy that is refused: ``message`` for the author, ``offset`` into the text (``None`` = nowhere).

    ``at`` is the place as line and column, both from 1; :func:`located` fills it in.
    """

    def __init__(self, message: str, offset: int | None = None, at: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.at = at


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """The place of a character of ``text``, both numbers from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def located(error: PolicyError, text: str) -> PolicyError:
    """The error with its place in ``text``."""
    if error.at is None and error.offset is not None:
        error.at = line_and_column(text, error.offset)
    return error


def quoted(text: str) -> str:
    """A name in double quotes, as errors show it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
