"""The list of rules, and what is done to one of them: the rest of the text stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.netmap.policy.hujson import HuJSONError, parse, plain
from controlplane.netmap.policy.parse import parse_policy
from controlplane.rules.edits import (
    NoSuchRule,
    add_rule,
    change_rule,
    delete_rule,
    move_rule,
    parse_place,
)
from controlplane.rules.forms import FORMS, AccessForm, GrantForm, RuleForm, SSHForm
from controlplane.rules.listing import MAX_NAMED, MAX_SHOWN, list_rules, rule_at

TEXT = """\
// 😀 our policy
{
	"acls": [
		// For the team,
		// since May.
		{"action": "accept", "src": ["group:eng"], "dst": ["tag:db:5432"]}, // keep me
		{"action": "accept", "src": ["*"], "dst": ["*:22"]},
	],
	/* below */
	"ssh": [{"action": "accept", "src": ["*"], "dst": ["tag:db"], "users": ["root"]}],
}
"""


def test_rules_are_listed_by_section_with_their_comments_and_places() -> None:
    acls, ssh = list_rules(TEXT)
    first, second = acls.rules
    assert (acls.section.name, ssh.section.name) == ("acls", "ssh")
    assert (first.note, second.note) == ("For the team, since May.", "")
    assert (first.line, second.line, ssh.rules[0].line) == (6, 7, 10)
    assert (first.is_first, first.is_last, second.is_first, second.is_last) == (True, False, False, True)
    units = TEXT.encode("utf-16-le")
    shown = units[2 * second.start : 2 * second.end].decode("utf-16-le")
    assert shown == '{"action": "accept", "src": ["*"], "dst": ["*:22"]}'


def test_only_the_rules_asked_for_keep_their_numbers() -> None:
    second = list_rules(TEXT)[0].rules[1]
    (group,) = list_rules(TEXT, {second.offset})
    assert [rule.at for rule in group.rules] == ["acls/1"]


def test_what_is_too_much_for_a_list_is_counted() -> None:
    names = ", ".join(f'"tag:t{number}"' for number in range(MAX_NAMED + 3))
    rule = f'{{"src": [{names}], "dst": ["*"], "ip": ["*"]}}'
    (group,) = list_rules('{"grants": [' + ",".join([rule] * (MAX_SHOWN + 2)) + "]}")
    assert (len(group.rules), group.left_out) == (MAX_SHOWN, 2)
    assert (len(group.rules[0].sources), group.rules[0].more_sources) == (MAX_NAMED, 3)


@pytest.mark.parametrize("text", ['{"acls": 1}', '{"acls": [1, {"src": 5, "dst": {}}]}', "[]", "3"])
def test_what_is_no_rule_breaks_no_list(text: str) -> None:
    for group in list_rules(text):
        assert all(rule.sources == () for rule in group.rules)


def test_a_text_that_cannot_be_read_says_so() -> None:
    with pytest.raises(HuJSONError):
        list_rules("{")


@pytest.mark.parametrize("at", ["acls/x", "acls/", "acls/1234567", "groups/0", "", "acls/-1"])
def test_places_that_are_none(at: str) -> None:
    with pytest.raises(NoSuchRule):
        parse_place(at)


def test_deleting_and_moving_leave_the_rest_alone() -> None:
    gone = delete_rule(TEXT, "acls", 1)
    assert gone == TEXT.replace('\t\t{"action": "accept", "src": ["*"], "dst": ["*:22"]},\n', "")
    moved = move_rule(TEXT, "acls", 0, 1)
    assert [rule["dst"] for rule in plain(parse(moved))["acls"]] == [["*:22"], ["tag:db:5432"]]
    assert "// keep me" in moved
    assert "// since May." in moved
    with pytest.raises(NoSuchRule):
        move_rule(TEXT, "acls", 1, 1)
    with pytest.raises(NoSuchRule):
        delete_rule(TEXT, "grants", 0)


@pytest.mark.parametrize("text", ["", "  \n", "{}", TEXT, '{"grants": null}', "// nothing\n{ }"])
def test_a_rule_is_added_to_whatever_there_is(text: str) -> None:
    rule = {"src": ["tag:a"], "dst": ["tag:b"], "ip": ["tcp:1"]}
    assert plain(parse(add_rule(text, "grants", rule)))["grants"] == [rule]
    assert "😀" not in text or "😀" in add_rule(text, "grants", rule)


def test_a_change_writes_only_what_is_other() -> None:
    rule = rule_at(TEXT, "acls", 0)
    assert rule is not None
    changed = change_rule(TEXT, "acls", 0, rule | {"dst": ["tag:db:5432", "tag:db:6432"]})
    assert changed == TEXT.replace('["tag:db:5432"]', '["tag:db:5432", "tag:db:6432"]')


# --- forms -------------------------------------------------------------------------------------------------

RULES: list[tuple[str, dict[str, Any]]] = [
    ("acls", {"action": "accept", "src": ["group:eng", "tag:ci"], "dst": ["tag:db:80,443"], "proto": "tcp"}),
    ("acls", {"action": "accept", "src": ["*"], "dst": ["*:*"], "proto": "47", "srcPosture": ["posture:a"]}),
    ("grants", {"src": ["*"], "dst": ["tag:db"], "ip": ["tcp:443", "icmp:*"], "via": ["tag:router"]}),
    ("grants", {"src": ["*"], "dst": ["tag:db"], "app": {"example.com/cap/x": [{"a": [1]}]}}),
    (
        "ssh",
        {
            "action": "check",
            "src": ["autogroup:member"],
            "dst": ["autogroup:self"],
            "users": ["root"],
            "checkPeriod": "8h",
            "acceptEnv": ["LANG", "GIT_*"],
        },
    ),
]


def sent(form: RuleForm) -> dict[str, str]:
    """What a browser sends of a form as it is filled in."""
    return {name: str(form.get_initial_for_field(field, name) or "") for name, field in form.fields.items()}


@pytest.mark.parametrize(("section", "rule"), RULES)
def test_a_form_that_is_sent_as_it_came_changes_nothing(section: str, rule: dict[str, Any]) -> None:
    kind = FORMS[section]
    form = kind(sent(kind.filled(rule)))
    assert form.is_valid(), form.errors
    assert form.rule(rule) == rule


def test_members_that_no_field_is_about_stay() -> None:
    old = {"action": "accept", "src": ["*"], "dst": ["*:22"], "users": ["old"], "proto": "tcp"}
    form = AccessForm({"src": "tag:a", "dst": "*:22", "proto": ""})
    assert form.is_valid()
    assert form.rule(old) == {"action": "accept", "src": ["tag:a"], "dst": ["*:22"], "users": ["old"]}


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (GrantForm({"src": "*", "dst": "tag:a"}), "ip"),
        (GrantForm({"src": ",", "dst": "tag:a", "ip": "*"}), "src"),
        (GrantForm({"src": "*", "dst": "tag:a", "app": "[1]"}), "app"),
        (GrantForm({"src": "*", "dst": "tag:a", "app": "{"}), "app"),
        (AccessForm({"src": "*", "dst": " ", "proto": ""}), "dst"),
        (AccessForm({"src": "*", "dst": "*:1", "proto": "x" * 30}), "proto"),
        (SSHForm({"src": "*", "dst": "tag:a", "users": "root", "action": "drop"}), "action"),
    ],
)
def test_forms_say_what_is_missing(form: RuleForm, field: str) -> None:
    assert not form.is_valid()
    assert field in form.errors


def test_rules_of_forms_are_rules_of_policies() -> None:
    form = SSHForm({"src": "autogroup:member", "dst": "autogroup:self", "users": "root", "action": "accept"})
    assert form.is_valid()
    parse_policy(add_rule("", "ssh", form.rule({})))
    assert "checkPeriod" not in form.rule({"checkPeriod": "8h"})
