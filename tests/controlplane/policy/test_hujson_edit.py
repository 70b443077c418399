"""Edits say what they are to say, and leave alone what they do not concern."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy.hujson import HuJSONError, parse, plain
from controlplane.netmap.policy.hujson_edit import PathError, append, insert, move, remove, set_value
from tests.controlplane.policy.texts import comments_in, noisy, values

POLICY = """\
// Ours
{
	"acls": [ // all rules

		// Section A

		// first
		{"action": "accept", "src": ["a"], "dst": ["b:*"]}, // of first
		// second
		{
			// why
			"action": "accept",
			"src": ["c", "d"], // people
			"dst": ["e:*"],
		},

		// Section B

		{"action": "accept", "src": ["x"], "dst": ["y:*"]},
		// end
	],
	"groups": {},
}
"""


def change(*pairs: tuple[str, str]) -> str:
    """The policy with pieces replaced, each of which is there once."""
    text = POLICY
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


FIRST = """\
		// first
		{"action": "accept", "src": ["a"], "dst": ["b:*"]}, // of first
"""
SECOND = """\
		// second
		{
			// why
			"action": "accept",
			"src": ["c", "d"], // people
			"dst": ["e:*"],
		},
"""
THIRD = """\
		{"action": "accept", "src": ["x"], "dst": ["y:*"]},
"""


def test_a_rule_takes_its_comments_along() -> None:
    assert move(POLICY, ("acls", 1), 0) == change((FIRST + SECOND, SECOND + FIRST))
    assert move(POLICY, ("acls", 0), 1) == change((FIRST + SECOND, SECOND + FIRST))
    assert move(POLICY, ("acls", 0), 0) == POLICY


def test_a_rule_that_moves_across_a_section_leaves_its_heading_alone() -> None:
    moved = move(POLICY, ("acls", 2), 0)
    assert moved == change(("\n" + THIRD, "\n" + SECOND), (FIRST + SECOND, THIRD + FIRST))


def test_a_removed_rule_leaves_headings_and_other_comments() -> None:
    assert remove(POLICY, ("acls", 0)) == change((FIRST, ""))
    assert remove(POLICY, ("acls", 1)) == change((SECOND, ""))
    assert remove(POLICY, ("acls", 2)) == change(("\n" + THIRD, ""))


def test_a_new_rule_looks_like_its_neighbours() -> None:
    new = '\t\t{"action": "accept", "src": ["ñ"], "dst": ["*:22"]},\n'
    rule = {"action": "accept", "src": ["ñ"], "dst": ["*:22"]}
    assert append(POLICY, ("acls",), rule) == change((THIRD, THIRD + new))
    assert insert(POLICY, ("acls",), 1, rule) == change((FIRST, FIRST + new))


def test_a_changed_rule_keeps_what_did_not_change() -> None:
    rule = {"action": "accept", "src": ["c", "z", "d"], "dst": ["e:*"], "proto": "tcp"}
    assert set_value(POLICY, ("acls", 1), rule) == change(
        ('["c", "d"]', '["c", "z", "d"]'),
        ('\t\t\t"dst": ["e:*"],\n', '\t\t\t"dst": ["e:*"],\n\t\t\t"proto": "tcp",\n'),
    )
    assert set_value(POLICY, (), plain(parse(POLICY))) == POLICY


def test_an_empty_object_is_opened() -> None:
    text = set_value(POLICY, ("groups", "group:a"), ["a@example.com"])
    assert text == change(('"groups": {}', '"groups": {\n\t\t"group:a": ["a@example.com"],\n\t}'))
    assert remove(text, ("groups", "group:a")) == POLICY


def test_a_new_section_is_written_as_the_others_are() -> None:
    tests = '\t"tests": [\n\t\t{\n\t\t\t"src": "a",\n\t\t\t"accept": ["b:22"],\n\t\t},\n\t],\n'
    text = set_value(POLICY, ("tests",), [{"src": "a", "accept": ["b:22"]}])
    assert text == change(('\t"groups": {},\n', '\t"groups": {},\n' + tests))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[]", "[9]"),
        ("[1]", "[1, 9]"),
        ("[ 1, 2 ]", "[ 1, 2, 9 ]"),
        ("[1, 2,]", "[1, 2, 9,]"),
        ("[\n  1\n]", "[\n  1,\n  9\n]"),
        ("[\n  1,\n]", "[\n  1,\n  9,\n]"),
        ("[\n  1 // one\n]", "[\n  1, // one\n  9\n]"),
        ("[\r\n  1,\r\n]", "[\r\n  1,\r\n  9,\r\n]"),
        ("[1, // one\n]", "[1, // one\n\t9,\n]"),
        ("[ // none\n]", "[ // none\n\t9,\n]"),
    ],
)
def test_an_item_is_added_in_the_manner_of_the_others(before: str, after: str) -> None:
    assert append(before, (), 9) == after


def test_a_comment_of_one_line_swallows_nothing_that_comes_to_stand_behind_it() -> None:
    assert remove("[//\n1, /* a\nb */\n\n2]", (0,)) == "[//\n/* a\nb */\n\n2]"
    assert move("[1, 2, // two\n3]", (1,), 0) == "[2, // two\n1,\n3]"


def test_plain_json_stays_plain_json() -> None:
    text = json.dumps({"acls": [{"src": ["a"]}, {"src": ["b"]}], "groups": {}}, indent=2)
    for edited in (
        append(text, ("acls",), {"src": ["c"]}),
        remove(text, ("acls", 1)),
        move(text, ("acls", 0), 1),
        set_value(text, ("hosts",), {"h": "10.0.0.1"}),
        set_value(text, ("groups", "group:a"), ["x"]),
        remove(text, ("groups",)),
    ):
        assert json.loads(edited) == plain(parse(edited)) != json.loads(text)
        assert "\t" not in edited


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("acls", 3), r"the text has no acls\[3\]"),
        (("acls", -1), r"the text has no acls\[-1\]"),
        (("acls", "src"), r"the text has no acls\.src"),
        (("ssh",), "the text has no ssh"),
        (("acls", 0, "src", 0, 0), r"the text has no acls\[0\]\.src\[0\]\[0\]"),
        ((), "the whole text cannot be removed"),
    ],
)
def test_a_path_to_nothing_is_refused(path: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(PathError, match=f"^{message}$"):
        remove(POLICY, path)


def test_what_is_no_list_or_no_hujson_is_refused() -> None:
    with pytest.raises(PathError, match=r"^groups is no list$"):
        append(POLICY, ("groups",), 1)
    with pytest.raises(PathError, match=r"^the text has no acls\[4\]$"):
        insert(POLICY, ("acls",), 4, {})
    with pytest.raises(PathError, match=r"^the text has no acls\[3\]$"):
        move(POLICY, ("acls", 0), 3)
    with pytest.raises(PathError, match=r"^the text has no ssh$"):
        set_value(POLICY, ("ssh", 0), {})
    with pytest.raises(HuJSONError):
        append("[", (), 1)


# --- laws -----------------------------------------------------------------------------------------------


def same(text: str, value: Any) -> bool:
    return json.dumps(plain(parse(text)), sort_keys=True) == json.dumps(value, sort_keys=True)


def containers(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """All lists and objects in a value, with their paths."""
    if isinstance(value, dict | list):
        yield path, value
        for step, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from containers(item, (*path, step))


lists_and_objects = st.lists(values(), max_size=6) | st.dictionaries(
    st.text("abc", max_size=2), values(), max_size=6
)


def edited(text: str, value: Any, new: Any, data: st.DataObject) -> tuple[str, Any]:
    """One edit of a text and the same edit of the value that it says."""
    value = copy.deepcopy(value)
    path, found = data.draw(st.sampled_from(list(containers(value))))
    if isinstance(found, dict):
        name = data.draw(st.sampled_from([*found, "new"]))
        if name in found and data.draw(st.booleans()):
            del found[name]
            return remove(text, (*path, name)), value
        found[name] = new
        return set_value(text, (*path, name), new), value
    index = data.draw(st.integers(0, len(found)))
    if index == len(found) or data.draw(st.booleans()):
        found.insert(index, new)
        return insert(text, path, index, new), value
    match data.draw(st.sampled_from(["set", "remove", "move"])):
        case "set":
            found[index] = new
            return set_value(text, (*path, index), new), value
        case "remove":
            del found[index]
            return remove(text, (*path, index)), value
        case _:
            to = data.draw(st.integers(0, len(found) - 1))
            found.insert(to, found.pop(index))
            return move(text, (*path, index), to), value


@given(lists_and_objects, st.integers(0), st.lists(values(5), max_size=4), st.data())
def test_a_text_after_edits_says_what_they_made_of_its_value(
    value: Any, seed: int, news: list[Any], data: st.DataObject
) -> None:
    text = noisy(value, Random(seed))
    for new in news:
        text, value = edited(text, value, new, data)
        assert same(text, value), text


@given(lists_and_objects, lists_and_objects, st.integers(0))
def test_a_text_can_be_made_to_say_anything_else(value: Any, new: Any, seed: int) -> None:
    assert same(set_value(noisy(value, Random(seed)), (), new), new)


@given(lists_and_objects, values(5), st.integers(0), st.data())
def test_additions_and_moves_lose_no_comment(value: Any, new: Any, seed: int, data: st.DataObject) -> None:
    text = noisy(value, Random(seed))
    path, found = data.draw(st.sampled_from(list(containers(value))))
    if isinstance(found, dict):
        after = set_value(text, (*path, "new"), new) if "new" not in found else text
    elif found and data.draw(st.booleans()):
        index, to = (data.draw(st.integers(0, len(found) - 1)) for _ in range(2))
        after = move(text, (*path, index), to)
    else:
        after = insert(text, path, data.draw(st.integers(0, len(found))), new)
    assert Counter(comments_in(after)) == Counter(comments_in(text))


@given(lists_and_objects.filter(bool), st.integers(0), st.data())
def test_what_stands_outside_of_the_edited_list_stays_as_it_is(
    value: Any, seed: int, data: st.DataObject
) -> None:
    text = noisy([value, value], Random(seed))
    first, second = parse(text).items
    step = data.draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    assert remove(text, (0, step)).endswith(text[first.end :])
    assert remove(text, (1, step)).startswith(text[: second.start])
