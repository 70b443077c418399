"""HuJSON is read as it is written, and what is none is refused with its place."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy import hujson
from controlplane.netmap.policy.hujson import (
    HuJSONError,
    Literal,
    Object,
    Value,
    parse,
    plain,
    position,
    walk,
)
from tests.controlplane.policy.texts import EXTRAS, noisy, values

ACCEPTED: list[tuple[str, Any]] = [
    ("{}", {}),
    ("[]", []),
    (" null\n", None),
    ("[true, false,]", [True, False]),
    ('{"a": 1, /* b */ "c": 2,} // d\n', {"a": 1, "c": 2}),
    ("/***/1/*/*/", 1),
    ("//*\n1", 1),
    ('"\\u0041\\n\\/\\\\u0041"', "A\n/\\u0041"),
    ('"\\ud83d\\ude00"', "😀"),
    ('"// no comment /* none */"', "// no comment /* none */"),
    ("[0, -0, 1.5, 1E3, 1e-3, 18446744073709551615]", [0, 0, 1.5, 1000.0, 0.001, (1 << 64) - 1]),
    ("123456789012345678901234567890", 123456789012345678901234567890.0),
]
REFUSED = [
    ("", 1, 1, "unexpected end of the text at start of value"),
    ("[1,", 1, 4, "unexpected end of the text at start of value"),
    ('{"a"', 1, 5, "unexpected end of the text after object name"),
    ('{"a": 1', 1, 8, "unexpected end of the text after object value (expecting ',' or '}')"),
    ("{,}", 1, 2, "invalid character ',' at start of value"),
    ("[1,,2]", 1, 4, "invalid character ',' at start of value"),
    ("[}", 1, 2, "invalid character '}' at start of value"),
    ('{"a" 1}', 1, 6, "invalid character '1' after object name"),
    ("{1: 2}", 1, 2, "invalid character '1' at start of object name"),
    ("[1\n 2]", 2, 2, "invalid character '2' after array value (expecting ',' or ']')"),
    ('[1\n "a]', 2, 2, 'the string is not closed: end it with "'),
    ('{"a": 1, // é\n "é": 2, "a": 3}', 2, 10, 'duplicate object member name "a"'),
    ("{a: 1}", 1, 2, "invalid literal: a"),
    ("[01]", 1, 2, "invalid literal: 01"),
    ("[NaN]", 1, 2, "invalid literal: NaN"),
    ("[+1]", 1, 2, "invalid literal: +1"),
    ("1e999", 1, 1, "the number 1e999 is too large"),
    ("{} x", 1, 4, "invalid character 'x' after top-level value"),
    ("\ufeff{}", 1, 1, "invalid character '\\ufeff' at start of value"),
    ("\u00a0{}", 1, 1, "invalid character '\\u00a0' at start of value"),
    ("'a'", 1, 1, "invalid character '\\'' at start of value"),
    ("# a\n1", 1, 1, "invalid character '#' at start of value"),
    ("1 / 2", 1, 3, "invalid character '/' after top-level value"),
    ("1 // x", 1, 3, "the comment is not closed: end it with a line break"),
    ("1\n/* x", 2, 1, "the comment is not closed: end it with */"),
    ('"a', 1, 1, 'the string is not closed: end it with "'),
    ('"a\\', 1, 1, 'the string is not closed: end it with "'),
    ('"a\nb"', 1, 1, 'the string is not closed on its line: end it with "'),
    ('"a\tb"', 1, 3, "invalid character '\\u0009' in a string: write it as an escape"),
    ('"a\\q"', 1, 3, "invalid escape '\\\\q' in a string"),
    ('"\\u12g4"', 1, 2, "invalid escape '\\\\u' in a string"),
    ('"\\udc00"', 1, 2, "\\udc00 is half a surrogate pair, which is no character"),
    ('"\\ud83dx"', 1, 2, "\\ud83d is half a surrogate pair, which is no character"),
]


@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_what_is_written_is_read(text: str, value: Any) -> None:
    assert json.dumps(plain(parse(text))) == json.dumps(value)
    assert json.dumps(plain(parse(text.encode()))) == json.dumps(value)


@pytest.mark.parametrize(("text", "line", "column", "message"), REFUSED)
def test_what_is_no_hujson_is_refused_with_its_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(HuJSONError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column, caught.value.message) == (line, column, message)
    assert str(caught.value) == f"line {line}, column {column}: {message}"


def test_bytes_that_are_no_utf8_are_refused_with_their_place() -> None:
    with pytest.raises(HuJSONError, match="line 2, column 3: invalid UTF-8"):
        parse("1\né ".encode() + b"\xff")
    with pytest.raises(HuJSONError, match="line 1, column 2: half a surrogate pair"):
        parse('"\ud800"')


@given(values())
def test_parsing_inverts_serialising(value: Any) -> None:
    for indent, ascii_only in ((None, True), (2, False)):
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        assert json.dumps(plain(parse(text))) == json.dumps(value)


@given(values(), st.integers(0))
def test_comments_whitespace_and_trailing_commas_change_nothing(value: Any, seed: int) -> None:
    assert json.dumps(plain(parse(noisy(value, Random(seed))))) == json.dumps(value)


@given(values(), st.integers(0))
def test_every_value_and_name_stands_where_the_tree_says(value: Any, seed: int) -> None:
    text = noisy(value, Random(seed))
    for found in walk(parse(text)):
        assert json.dumps(plain(parse(text[found.start : found.end]))) == json.dumps(plain(found))
        if isinstance(found, Object):
            for name, member in found.members.items():
                assert json.loads(text[member.start : member.end]) == name


@given(values(), st.integers(0), st.sampled_from(sorted({extra for extra in EXTRAS if extra})))
def test_an_addition_between_values_moves_nothing_else(value: Any, seed: int, extra: str) -> None:
    text = noisy(value, Random(seed))
    found = parse(text)
    longer = text[: found.start] + extra + text[found.start : found.end] + extra + text[found.end :]
    moved = parse(longer)
    assert moved.start == found.start + len(extra)
    assert json.dumps(plain(moved)) == json.dumps(value)


@given(values(), st.integers(0), st.data())
def test_a_text_that_was_cut_off_fails_with_a_declared_error(
    value: Any, seed: int, data: st.DataObject
) -> None:
    text = noisy([value], Random(seed))
    end = data.draw(st.integers(0, parse(text).end - 1))
    with pytest.raises(HuJSONError):
        parse(text[:end])


def refusal(text: str | bytes) -> HuJSONError | None:
    """Why a text is refused, ``None`` when it is not."""
    try:
        parse(text)
    except HuJSONError as error:
        return error
    return None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    error = refusal(data)
    if error is None:
        json.dumps(plain(parse(data)), allow_nan=False).encode()
    else:
        assert min(error.line, error.column) >= 1


@given(st.text(max_size=30), st.integers(0, 30))
def test_positions_are_those_of_an_editor(text: str, offset: int) -> None:
    offset = min(offset, len(text))
    lines = text[:offset].split("\n")
    assert position(text, offset) == (len(lines), len(lines[-1]) + 1)


# --- bounds ---------------------------------------------------------------------------------------------


def nested(depth: int) -> str:
    return '{"a":[' * (depth // 2) + "[" * (depth % 2) + "]" * (depth % 2) + "]}" * (depth // 2)


def test_depth_is_bounded() -> None:
    parse(nested(hujson.MAX_DEPTH))
    for text in (nested(hujson.MAX_DEPTH + 1), "[" * 2_000_000, '{"a":' * 500_000, nested(1_000_000)):
        with pytest.raises(HuJSONError, match=r"line 1, column \d+: nested more than 100 deep"):
            parse(text)


@pytest.mark.parametrize("letter", ["a", "é"])
def test_size_is_bounded_in_bytes(letter: str) -> None:
    room = hujson.MAX_POLICY_BYTES - 2
    fits = '"' + letter * (room // len(letter.encode())) + '"'
    parse(fits)
    parse(fits.encode())
    for text in (fits + " ", (fits + " ").encode(), " " * 10_000_000, b" " * 10_000_000):
        with pytest.raises(HuJSONError, match=f"at most {hujson.MAX_POLICY_BYTES} are taken"):
            parse(text)


def test_values_are_bounded() -> None:
    fits = "[" + "0," * (hujson.MAX_VALUES - 1) + "]"
    parse(fits)
    for more in ("0,", "[],", "null,", '"a",'):
        with pytest.raises(HuJSONError, match=f"more than {hujson.MAX_VALUES} values"):
            parse(fits[:-1] + more + "]")


def test_a_hundred_thousand_names_are_read() -> None:
    count = 100_000
    found = parse("{" + ",\n".join(f'"name-{n}": {n}' for n in range(count)) + "}")
    assert plain(found) == {f"name-{n}": n for n in range(count)}
    assert isinstance(found, Object)
    assert_is_literal(found.members["name-99999"].value, 99_999)


def assert_is_literal(value: Value, expected: Any) -> None:
    assert isinstance(value, Literal)
    assert value.value == expected


@pytest.mark.parametrize(
    "bomb",
    [
        "//\n" * 1_300_000 + "1",
        "/**/" * 1_000_000 + "1",
        "1 /" + "*" * 4_000_000,
        '"' + "\\" * 4_000_000,
        '"' + "a" * 4_000_000,
        '"' + "\\u0041" * 600_000 + '"',
        "9" * 4_000_000,
        "[" + "-" * 4_000_000,
        "[1" + " /" * 2_000_000,
        "[" + "/* " * 1_300_000,
        "\n" * 4_000_000 + "x",
    ],
    ids=lambda bomb: repr(bomb[:6]),
)
def test_long_texts_of_one_thing_are_read_or_refused(bomb: str) -> None:
    """In time that grows with the text: a pattern that tries again from each character would never end."""
    error = refusal(bomb)
    assert error is None or len(error.message) < 200
