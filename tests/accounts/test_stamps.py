"""``{% stamp %}``: rendered once for a kind, and never twice for the same row or wrongly for another."""

from __future__ import annotations

from typing import Any

import pytest
from django.template import Context, Template, TemplateSyntaxError
from hypothesis import given
from hypothesis import strategies as st

LIST = (
    "{% load stamps %}{% for row in rows %}{% stamp row.kind by id=row.id name=row.name %}"
    '<a href="/{{ id }}" title="{{ word }} {{ name }}">'
    "{% if row.kind %}{{ shared }}{% else %}-{% endif %}</a>{% endstamp %}{% endfor %}"
)
PLAIN = (
    "{% for row in rows %}"
    '<a href="/{{ row.id }}" title="{{ word }} {{ row.name }}">'
    "{% if row.kind %}{{ shared }}{% else %}-{% endif %}</a>{% endfor %}"
)
texts = st.text(st.sampled_from("ab<>&\"'{}% \ue000\ue001\ue002\ue00f\\"), max_size=8)
rows = st.lists(st.fixed_dictionaries({"id": texts, "name": texts, "kind": st.booleans()}), max_size=6)


class Counted:
    """How often it was printed."""

    def __init__(self) -> None:
        self.times = 0

    def __str__(self) -> str:
        self.times += 1
        return "shared"


def rendered(text: str, rows: list[dict[str, Any]], shared: Any = "shared") -> str:
    return Template(text).render(Context({"rows": rows, "word": "To", "shared": shared}))


@given(rows=rows)
def test_a_list_is_the_same_as_without(rows: list[dict[str, Any]]) -> None:
    assert rendered(LIST, rows) == rendered(PLAIN, rows)


def test_each_kind_is_rendered_once() -> None:
    shared = Counted()
    rendered(LIST, [{"id": str(number), "name": "a", "kind": True} for number in range(9)], shared)
    assert shared.times == 1


def test_a_page_keeps_nothing_for_the_next() -> None:
    template = Template(LIST)
    row = {"id": "1", "name": "a", "kind": True}
    first = template.render(Context({"rows": [row], "word": "To", "shared": "one"}))
    second = template.render(Context({"rows": [row], "word": "To", "shared": "two"}))
    assert ">one<" in first
    assert ">two<" in second


@pytest.mark.parametrize("wrong", ["row.kind", "row.kind by", "by by a=row.id", "row.kind by row.id"])
def test_a_tag_that_names_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(TemplateSyntaxError, match="stamp"):
        Template("{% load stamps %}{% stamp " + wrong + " %}{% endstamp %}")
