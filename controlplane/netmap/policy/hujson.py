"""HuJSON: JSON with comments and trailing commas, read into a tree that points into its text. Pure.

The text is the truth: the tree holds where each value and name stands, and what is between them (comments,
line breaks) stays in the text, so that an edit can leave it alone. Taken and refused is what
github.com/tailscale/hujson takes and refuses, but for what can mean nothing good: a name twice in one object,
half a surrogate pair, and a number that no computer holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_POLICY_BYTES = 4 << 20
MAX_DEPTH = 100
MAX_VALUES = 250_000

Scalar = None | bool | int | float | str


class HuJSONError(ValueError):
    """What is wrong with a text, at ``line`` and ``column``, both from 1, columns in characters."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message, self.line, self.column = message, line, column


@dataclass(slots=True)
class Literal:
    """null, a boolean, a number or a string: ``text[start:end]`` says ``value``. Nobody changes it."""

    start: int
    end: int
    value: Scalar


@dataclass(frozen=True, slots=True)
class Array:
    """``text[start:end]`` is it, brackets and all."""

    start: int
    end: int
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """``text[start:end]`` is it, braces and all; members in the order of the text."""

    start: int
    end: int
    members: Mapping[str, Member] = field(default_factory=dict)


@dataclass(slots=True)
class Member:
    """A name, which stands at ``text[start:end]`` with its quotes, and its value. Nobody changes it."""

    start: int
    end: int
    name: str
    value: Value


Value = Literal | Array | Object

EXTRA = re.compile(r"(?:[ \t\r\n]++|//[^\n]*+\n|/\*(?s:.*?)\*/)*+")
_TOKEN = re.compile(
    EXTRA.pattern
    + r"""(?:"([^"\\\x00-\x1f]*+)"
    |"((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+)"
    |(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+)(?![-+.a-zA-Z0-9])
    |(true|false|null)(?![-+.a-zA-Z0-9])
    |([]{}:,[]))""".replace("\n    ", "")
)
_PLAIN, _ESCAPED, _NUMBER, _WORD, _SIGN = 1, 2, 3, 4, 5  # the groups of _TOKEN
_BARE = re.compile(r"[-+.a-zA-Z0-9]+")
_STRING_PART = re.compile(r'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_ESCAPE = re.compile(r"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)|\\u(....)|\\(.)")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_SHOWN = 40  # characters of a bad word that an error repeats


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def parse(text: str | bytes) -> Value:
    """The one value of a text; offsets count characters. Raises :class:`HuJSONError`."""
    text = _checked(text)
    parser = _Parser(text)
    value = parser.value(0)
    end = _end_of_extra(text, parser.at)
    if end < len(text):
        raise _unexpected(text, end, "after top-level value")
    return value


def plain(value: Value) -> Any:
    """What a value says, as Python's own dicts, lists, strings and numbers."""
    if isinstance(value, Literal):
        return value.value
    if isinstance(value, Array):
        return [plain(item) for item in value.items]
    return {name: plain(member.value) for name, member in value.members.items()}


def walk(value: Value) -> Iterator[Value]:
    """A value and all values in it, as they stand in the text."""
    yield value
    if isinstance(value, Array):
        for item in value.items:
            yield from walk(item)
    elif isinstance(value, Object):
        for member in value.members.values():
            yield from walk(member.value)


def _checked(text: str | bytes) -> str:
    """The text as characters that are Unicode and not too many."""
    if isinstance(text, bytes):
        _check_size(len(text))
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            before = text[: error.start].decode()
            raise _error(before, len(before), "invalid UTF-8: save the file as UTF-8") from None
    try:
        _check_size(len(text) if text.isascii() else len(text.encode()))
    except UnicodeEncodeError as error:
        raise _error(text, error.start, "half a surrogate pair is no character") from None
    return text


def _check_size(size: int) -> None:
    if size > MAX_POLICY_BYTES:
        raise HuJSONError(f"the text has {size} bytes; at most {MAX_POLICY_BYTES} are taken", 1, 1)


class _Parser:
    """Where one parse is: ``at`` in ``text``, with ``left`` values to go until there are too many."""

    __slots__ = ("at", "left", "text")

    def __init__(self, text: str) -> None:
        self.text, self.at, self.left = text, 0, MAX_VALUES

    def value(self, depth: int) -> Value:
        """The value that comes next."""
        value = self._value_or_end("", depth)
        assert value is not None, "only a bracket that was asked for ends a list"  # noqa: S101
        return value

    def _value_or_end(self, closing: str, depth: int) -> Value | None:
        """The value that comes next, ``None`` when it is the bracket that closes the list."""
        text, match = self.text, _TOKEN.match(self.text, self.at)
        if match is None:
            raise _refused(text, self.at, "at start of value")
        kind, self.at = match.lastindex or 0, match.end()
        if kind == _SIGN:
            return self._nested(match[_SIGN], closing, depth)
        self.left -= 1
        if self.left < 0:
            raise _error(text, match.start(kind), f"more than {MAX_VALUES} values: make the policy shorter")
        if kind == _PLAIN:
            return Literal(match.start(_PLAIN) - 1, self.at, match[_PLAIN])
        if kind == _ESCAPED:
            start = match.start(_ESCAPED) - 1
            return Literal(start, self.at, _unescaped(text, start, match[_ESCAPED]))
        start = match.start(kind)
        value = _number(text, start, match[kind]) if kind == _NUMBER else _WORDS[match[kind]]
        return Literal(start, self.at, value)

    def _nested(self, sign: str, closing: str, depth: int) -> Value | None:
        if sign == closing:
            return None
        start = self.at - 1
        if sign not in "{[":
            raise _unexpected(self.text, start, "at start of value")
        if depth == MAX_DEPTH:
            raise _error(self.text, start, f"nested more than {MAX_DEPTH} deep: make the policy flatter")
        self.left -= 1
        if self.left < 0:
            raise _error(self.text, start, f"more than {MAX_VALUES} values: make the policy shorter")
        return self._object(start, depth + 1) if sign == "{" else self._array(start, depth + 1)

    def _array(self, start: int, depth: int) -> Array:
        items: list[Value] = []
        while (item := self._value_or_end("]", depth)) is not None:
            items.append(item)
            if self._ends("]", "after array value (expecting ',' or ']')"):
                break
        return Array(start, self.at, tuple(items))

    def _object(self, start: int, depth: int) -> Object:
        members: dict[str, Member] = {}
        while (name := self._value_or_end("}", depth)) is not None:
            if not isinstance(name, Literal) or not isinstance(name.value, str):
                raise _unexpected(self.text, name.start, "at start of object name")
            if name.value in members:
                raise _error(self.text, name.start, f"duplicate object member name {_quoted(name.value)}")
            self._sign(":", "after object name")
            members[name.value] = Member(name.start, name.end, name.value, self.value(depth))
            if self._ends("}", "after object value (expecting ',' or '}')"):
                break
        return Object(start, self.at, members)

    def _ends(self, closing: str, where: str) -> bool:
        return self._sign("," + closing, where) == closing

    def _sign(self, signs: str, where: str) -> str:
        """Which of these signs comes next; one that does not come is refused."""
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise _refused(self.text, self.at, where)
        sign = match[_SIGN]
        if sign is None or sign not in signs:
            raise _unexpected(self.text, _end_of_extra(self.text, self.at), where)
        self.at = match.end()
        return sign


def _number(text: str, start: int, digits: str) -> int | float:
    """A whole number when 64 bits hold it, else the nearest float."""
    if len(digits) <= 20 and digits.lstrip("-").isdecimal():
        number = int(digits)
        if -(1 << 63) <= number < 1 << 64:
            return number
    approximate = float(digits)
    if math.isinf(approximate):
        raise _error(text, start, f"the number {_cut(digits)} is too large")
    return approximate


def _unescaped(text: str, start: int, inner: str) -> str:
    def character(match: re.Match[str]) -> str:
        high, low, code, short = match.groups()
        if short is not None:
            return _SHORT.get(short, short)
        if code is None:
            return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
        if code[0] in "dD" and code[1] in "89abcdefABCDEF":
            at = start + 1 + match.start()
            raise _error(text, at, f"\\u{code} is half a surrogate pair, which is no character")
        return chr(int(code, 16))

    return _ESCAPE.sub(character, inner)


# --- what went wrong --------------------------------------------------------------------------------------


def _error(text: str, offset: int, message: str) -> HuJSONError:
    return HuJSONError(message, *position(text, offset))


def _unexpected(text: str, offset: int, where: str) -> HuJSONError:
    """A character (or the end of the text) where it cannot stand."""
    if offset >= len(text):
        return _error(text, offset, f"unexpected end of the text {where}")
    return _error(text, offset, f"invalid character {_shown(text[offset])} {where}")


def _end_of_extra(text: str, at: int) -> int:
    """Where whitespace and comments end; a comment that does not is refused."""
    match = EXTRA.match(text, at)
    end = match.end() if match else at
    if text.startswith("/*", end):
        raise _error(text, end, "the comment is not closed: end it with */")
    if text.startswith("//", end):
        raise _error(text, end, "the comment is not closed: end it with a line break")
    return end


def _refused(text: str, at: int, where: str) -> HuJSONError:
    """Why no token comes at ``at``."""
    start = _end_of_extra(text, at)
    if text.startswith('"', start):
        return _bad_string(text, start)
    if bare := _BARE.match(text, start):
        if where != "at start of value":
            return _unexpected(text, start, where)
        return _error(text, start, f"invalid literal: {_cut(bare[0])}")
    return _unexpected(text, start, where)


def _bad_string(text: str, start: int) -> HuJSONError:
    match = _STRING_PART.match(text, start + 1)
    end = match.end() if match else start + 1
    if end >= len(text) or (text[end] == "\\" and end + 1 >= len(text)):
        return _error(text, start, 'the string is not closed: end it with "')
    if text[end] == "\\":
        return _error(text, end, f"invalid escape {text[end : end + 2]!r} in a string")
    if text[end] == "\n":
        return _error(text, start, 'the string is not closed on its line: end it with "')
    return _error(text, end, f"invalid character {_shown(text[end])} in a string: write it as an escape")


def _shown(character: str) -> str:
    if character == "'":
        return r"'\''"
    if character.isprintable():
        return f"'{character}'"
    return f"'\\u{ord(character):04x}'" if ord(character) < 0x10000 else f"'\\U{ord(character):08x}'"


def _quoted(name: str) -> str:
    shown = _cut(name).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _shown(c)[1:-1] for c in shown) + '"'


def _cut(word: str) -> str:
    return word if len(word) <= _SHOWN else word[:_SHOWN] + "…"
