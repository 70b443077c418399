"""Policies mean what Tailscale's own service made of them: recordings of its answers, beside ours.

``TRENZA_POLICY_CASES`` names the folder with the recordings, one JSON Lines file a category.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from tests.controlplane.policy.recordings import CATEGORIES, differences

GIVEN = ("id", "policy", "users", "nodes", "tailnet_settings")  # all that the evaluation is shown
ENOUGH_OF_EACH, ENOUGH_OF_ALL, ENOUGH_MESSAGES = 0.95, 0.98, 0.9
FEWEST_CASES = 10  # in a category: with less it proves nothing

pytestmark = pytest.mark.needs("policy-cases")
Cases = dict[str, list[dict[str, Any]]]
Answers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cases() -> Cases:
    folder = Path(os.environ["TRENZA_POLICY_CASES"])
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines() if line]
        for name in CATEGORIES
    }


@pytest.fixture(scope="module")
def answers(cases: Cases, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What ``policyeval`` says to the cases, of which it sees the questions only."""
    folder = tmp_path_factory.mktemp("cases")
    files = []
    for name, recorded in cases.items():
        file = folder / f"{name}.jsonl"
        questions = ({member: case.get(member) for member in GIVEN} for case in recorded)
        file.write_text("".join(json.dumps(question) + "\n" for question in questions))
        files.append(str(file))
    output = io.StringIO()
    call_command("policyeval", *files, stdout=output)
    return {answer["id"]: answer for answer in map(json.loads, output.getvalue().splitlines())}


@pytest.mark.parametrize("category", CATEGORIES)
def test_nodes_are_told_what_was_recorded(category: str, cases: Cases, answers: Answers) -> None:
    recorded = cases[category]
    assert len(recorded) >= FEWEST_CASES
    wrong = {case["id"]: found for case in recorded if (found := differences(case, answers.get(case["id"])))}
    assert len(wrong) <= (1 - ENOUGH_OF_EACH) * len(recorded), json.dumps(wrong, indent=1)


def test_nearly_all_recordings_are_met(cases: Cases, answers: Answers) -> None:
    everything = [case for recorded in cases.values() for case in recorded]
    assert len(answers) == len({case["id"] for case in everything})
    wrong = [case["id"] for case in everything if differences(case, answers.get(case["id"]))]
    assert len(wrong) <= (1 - ENOUGH_OF_ALL) * len(everything), wrong


def test_refusals_are_in_the_recorded_words(cases: Cases, answers: Answers) -> None:
    refused = [case for recorded in cases.values() for case in recorded if case["status"] != 200]
    assert len(refused) >= FEWEST_CASES
    said = Counter(
        answers.get(case["id"], {}).get("message") == case["response"]["message"] for case in refused
    )
    assert said[True] >= ENOUGH_MESSAGES * len(refused)


def test_a_wrong_answer_is_noticed(cases: Cases, answers: Answers) -> None:
    """The comparison itself: it sees a rule too few, a peer too many, and silence."""
    case = next(
        case
        for case in cases["acl"]
        if case["status"] == 200 and any(told.get("filter_rules") for told in case["expect"].values())
    )
    right = answers[case["id"]]
    name = next(name for name, told in case["expect"].items() if told.get("filter_rules"))
    told = right["expect"][name]
    assert differences(case, right) == []
    assert differences(case, None) == ["no answer"]
    assert differences(case, right | {"expect": {}})
    deaf = right | {"expect": right["expect"] | {name: told | {"filter_rules": []}}}
    assert differences(case, deaf) == [f"{name}: filter"]
    seeing = right | {"expect": right["expect"] | {name: told | {"peers": {**told["peers"], "nobody": {}}}}}
    assert differences(case, seeing) == [f"{name}: peers"]
