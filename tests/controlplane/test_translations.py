"""Every text of the panel is in Spanish: nothing missing, doubtful, left over, or with other placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po
from django.utils.translation.template import templatize

from controlplane.env import CHECKOUT

APPS = ("accounts", "nodes", "controlplane")
KEYWORDS: dict[str, tuple[int, ...] | None] = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
}
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]")
PO = CHECKOUT / "locale" / "es" / "LC_MESSAGES" / "django.po"
Id = str | tuple[str, ...]


def _sources() -> Iterator[tuple[Path, str]]:
    for app in APPS:
        for path in (CHECKOUT / app).rglob("*.py"):
            yield path, path.read_text()
    templates = CHECKOUT / "templates"
    for path in (*templates.rglob("*.html"), *templates.rglob("*.txt")):
        # It blanks what is no text, letter by letter, and so leaves indentation that no tokenizer takes.
        lines = templatize(path.read_text(), origin=str(path)).splitlines()
        yield path, "\n".join(line.strip() for line in lines)


def _texts_in(source: str) -> Iterator[Id]:
    for _line, found, _comments, _context in extract("python", BytesIO(source.encode()), KEYWORDS, (), {}):
        yield found if isinstance(found, str) else tuple(found)


@pytest.fixture(scope="module")
def used() -> dict[Id, str]:
    """Every text that can be shown, and a file that has it."""
    return {text: path.name for path, source in _sources() for text in _texts_in(source) if text}


@pytest.fixture(scope="module")
def spanish() -> Catalog:
    with PO.open("rb") as file:
        return read_po(file, locale="es")


def _messages(catalogue: Catalog) -> list[Message]:
    return [message for message in catalogue if message.id]


def test_there_are_texts_to_compare(used: dict[Id, str]) -> None:
    assert len(used) > 200
    assert "Add device" in used
    assert ("%(n)s waits for your decision", "%(n)s wait for your decision") in used


def test_every_text_is_in_spanish(used: dict[Id, str], spanish: Catalog) -> None:
    known = {message.id for message in _messages(spanish)}
    missing = {text: name for text, name in used.items() if text not in known}
    assert not missing


def test_no_text_is_left_over(used: dict[Id, str], spanish: Catalog) -> None:
    assert not [message.id for message in _messages(spanish) if message.id not in used]


def test_every_translation_is_finished(spanish: Catalog) -> None:
    unfinished = [
        message.id
        for message in _messages(spanish)
        if message.fuzzy
        or not all(message.string if isinstance(message.string, tuple | list) else [message.string])
    ]
    assert not unfinished


def test_translations_keep_placeholders(spanish: Catalog) -> None:
    for message in _messages(spanish):
        ids = message.id if isinstance(message.id, tuple) else (message.id,)
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        wanted = set(PLACEHOLDER.findall(ids[-1]))
        for string in strings:
            assert set(PLACEHOLDER.findall(string)) == wanted, message.id
