"""Names of files: what is accepted can only be a file in the inbox, and both ends accept the same."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.peerapi.names import InvalidName, check_name, is_partial, next_name, partial_name

GOOD = ["a", "a b.txt", "Ünïcode ☃.jpg", ".hidden", "a..b", "-rf", "$(x)", "a'b", "ﷺ", "x" * 255]
BAD = [
    "", ".", "..", "../a", "a/b", "/a", "a\\b", "a:b", "a*b", 'a"b', "a<b", "a>b", "a|b", " a", "a ", "\ta",
    "a\nb", "a\x00b", "a\x7fb", "a\u200bb", "a\u2028b", "\ufeff", "a.partial", "a.deleted", "x" * 256,
    "é" * 128, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        check_name(name)


@given(st.text(max_size=60))
def test_whatever_is_accepted_stays_in_its_folder(name: str) -> None:
    try:
        check_name(name)
        partial = partial_name(name, "n123CNTRL")
    except InvalidName:
        return
    for one in (name, partial):
        assert Path("/inbox", one).name == one
        assert not any(unicodedata.category(character).startswith("C") for character in one)
    assert is_partial(partial)
    assert not is_partial(name)


@pytest.mark.parametrize("sender", ["", "../x", "a.b", "a/b", "é"])
def test_a_sender_cannot_choose_a_path(sender: str) -> None:
    with pytest.raises(InvalidName):
        partial_name("a", sender)


@pytest.mark.parametrize(
    ("name", "following"),
    [
        ("letter", "letter (1)"),
        ("letter(1)", "letter(1) (1)"),
        ("letter (1)", "letter (2)"),
        ("photo.jpg", "photo (1).jpg"),
        ("backup.tar.gz", "backup (1).tar.gz"),
        ("backup (9).tar.gz", "backup (10).tar.gz"),
        (".profile", ".profile (1)"),
        ("release 2.0", "release 2.0 (1)"),
    ],
)
def test_the_next_name_is_numbered_before_its_endings(name: str, following: str) -> None:
    assert next_name(name) == following


@given(st.text(min_size=1, max_size=40))
def test_the_next_name_is_another_good_one(name: str) -> None:
    try:
        check_name(name)
    except InvalidName:
        return
    assert next_name(name) != name
    check_name(next_name(name))
