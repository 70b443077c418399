"""Texts by the thousand: read as another parser reads them, or refused with a declared error.

For some seconds in each run, in the long run 100,000 of them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import pyjson5
import pytest

from bench.policy.estate import Size, snapshot_of
from controlplane.netmap.policy.check import check
from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.hujson import HuJSONError, parse, plain
from tests.controlplane.policy.policies import a_policy
from tests.controlplane.policy.texts import a_text

SECONDS = 5
MANY = 100_000
SNAPSHOT = snapshot_of(Size(12, users=3))

# JSON5 has more: names without quotes, other quotes, numbers, whitespace, escapes and ends of lines. What is
# refused for these reasons may be read by a parser of JSON5, and a name twice means the last one there.
ONLY_JSON5 = (
    "invalid literal: ",
    "invalid escape ",
    "invalid character '\\ufeff' ",
    "invalid character 'é' at start of value",
    "invalid character '\\u0009' in a string",
    "invalid character '\\u0000' in a string",
    "the comment is not closed: end it with a line break",
    "duplicate object member name ",
)


def seeds(first: int) -> Iterator[int]:
    """Seeds until the time is over."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        yield from range(first, first + 50)
        first += 50


def canonical(value: Any) -> str:
    """A value with its numbers as HuJSON has them; raises ``ValueError`` for those that are none."""

    def number(found: Any) -> Any:
        if isinstance(found, dict):
            return {name: number(item) for name, item in found.items()}
        if isinstance(found, list):
            return [number(item) for item in found]
        if isinstance(found, int) and not -(1 << 63) <= found < 1 << 64:
            return float(found)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(found)
        return found

    return json.dumps(number(value))


def read_by_another(text: str) -> str | None:
    """What pyjson5 makes of a text, ``None`` when it refuses it."""
    try:
        return canonical(pyjson5.decode(text))
    except (pyjson5.Json5DecoderException, ValueError, OverflowError):
        return None


def read(text: str) -> tuple[str | None, str]:
    """What we make of a text, else why it is refused."""
    try:
        return json.dumps(plain(parse(text))), ""
    except HuJSONError as error:
        return None, error.message


def assert_read_alike(text: str) -> bool:
    """Both parsers read the same value, or refuse the text; whether they read it."""
    text = text.replace("\r", " ").replace("\u2028", " ")  # these end lines, and so comments, in JSON5
    ours, reason = read(text)
    assert ours == read_by_another(text) or reason.startswith(ONLY_JSON5), (text, reason)
    return ours is not None


def try_all(found: Iterable[int], attempt: Callable[[int], bool]) -> None:
    """Try every seed; among them have to be those that are taken and those that are refused."""
    taken = [attempt(seed) for seed in found]
    assert len(taken) // 10 < sum(taken) < len(taken) - len(taken) // 10


def read_seed(seed: int) -> bool:
    return assert_read_alike(a_text(seed))


def test_texts_are_read_as_another_parser_reads_them() -> None:
    try_all(seeds(MANY), read_seed)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_texts_are_read_as_another_parser_reads_them() -> None:
    try_all(range(MANY), read_seed)


# --- policies -------------------------------------------------------------------------------------------


def compile_seed(seed: int) -> bool:
    """Check a policy, and ask what every node is told; whether it was accepted."""
    try:
        checked = check(a_policy(seed), SNAPSHOT)
    except PolicyError as error:
        assert_says_where(error)
        return False
    for node_id in SNAPSHOT.nodes:
        evaluation = checked.evaluation
        told = (
            evaluation.filter_of(node_id),
            evaluation.ssh_of(node_id),
            evaluation.capabilities_of(node_id),
        )
        orjson.dumps(told)
        assert not evaluation.sees(node_id, node_id)
        for peer in evaluation.world.ids(evaluation.peers_of(node_id)):
            assert evaluation.sees(peer, node_id), "seeing is mutual"
            assert set(evaluation.routes_for(node_id, peer)) <= set(SNAPSHOT.nodes[peer].routes)
    return True


def assert_says_where(error: PolicyError) -> None:
    assert error.message
    assert error.at is None or min(error.at) >= 1


def test_policies_are_compiled_or_refused_with_a_declared_error() -> None:
    try_all(seeds(MANY), compile_seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_policies_are_compiled_or_refused_with_a_declared_error() -> None:
    try_all(range(MANY), compile_seed)
