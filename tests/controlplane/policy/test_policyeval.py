"""The command that evaluates recorded cases."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

USERS = [{"login": "ann@corp.example", "name": "ann"}, {"login": "bob@corp.example", "name": "bob"}]


def facts(address: int, **more: Any) -> dict[str, Any]:
    return {
        "ipv4": f"100.64.0.{address}",
        "ipv6": f"fd7a:115c:a1e0::{address:x}",
        "user": None,
        "tags": [],
        "advertised_routes": None,
        "approved_routes": [],
        **more,
    }


def case(policy: dict[str, Any], **nodes: dict[str, Any]) -> dict[str, Any]:
    return {"id": "one", "policy": json.dumps(policy), "users": USERS, "nodes": nodes}


def answers(folder: Path, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    file, output = folder / "cases.jsonl", io.StringIO()
    file.write_text("\n".join(json.dumps(one) for one in cases) + "\n")
    call_command("policyeval", str(file), stdout=output)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_each_node_is_told_its_part(tmp_path: Path) -> None:
    policy = {
        "grants": [{"src": ["ann@corp.example"], "dst": ["10.1.0.0/16"], "ip": ["tcp:22"]}],
        "tagOwners": {"tag:r": []},
        "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:r"]}},
    }
    router = {"tags": ["tag:r"], "advertised_routes": ["10.1.0.0/16", "192.168.0.0/24"]}
    first, second = facts(3, **router), facts(2, **router)
    (answer,) = answers(
        tmp_path, case(policy, laptop=facts(1, user="ann@corp.example"), first=first, second=second)
    )
    assert (answer["status"], answer["message"]) == (200, "")
    laptop = answer["expect"]["laptop"]["peers"]
    assert laptop["second"]["primary_routes"] == ["10.1.0.0/16"]  # the lower address joined first
    assert laptop["second"]["allowed_ips"] == ["100.64.0.2/32", "fd7a:115c:a1e0::2/128", "10.1.0.0/16"]
    assert laptop["first"]["primary_routes"] == []
    assert answer["expect"]["first"]["filter_rules"] == [
        {
            "SrcIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
            "DstPorts": [{"IP": "10.1.0.0/16", "Ports": {"First": 22, "Last": 22}}],
            "IPProto": [6],
        }
    ]


def test_refusals_and_failing_tests_are_answers_too(tmp_path: Path) -> None:
    laptop = facts(1, user="ann@corp.example")
    refused = case({"acls": [{"action": "deny", "src": [], "dst": []}]}, laptop=laptop)
    failing = case(
        {"grants": [], "tests": [{"src": "bob@corp.example", "accept": ["1.1.1.1:1"]}]}, laptop=laptop
    )
    one, other = answers(tmp_path, refused, failing)
    assert (one["status"], one["message"], one["at"]) == (400, '"deny" is not a valid action', [1, 22])
    assert (other["status"], other["message"]) == (400, "test(s) failed")
    assert other["data"] == [
        {"user": "bob@corp.example", "errors": ['address "1.1.1.1:1": want: Accept, got: Drop']}
    ]


@pytest.mark.parametrize("content", ["no json", "[]", '{"id": "one"}'])
def test_what_is_no_case_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(content)
    with pytest.raises(CommandError, match=r"line 1"):
        call_command("policyeval", str(file), stdout=io.StringIO())


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        call_command("policyeval", str(tmp_path / "none"), stdout=io.StringIO())
