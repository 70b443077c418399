"""Reports of paths: what is written is read back, and nothing else is taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import MessageError
from wire.keys import NodePublic
from wire.paths import MAX_LATENCY_MS, MAX_PATHS, PeerPath, Reason, parse_paths, report_json

PATHS = st.lists(
    st.one_of(
        st.builds(
            PeerPath,
            node_id=st.integers(),
            endpoint=st.just("[2001:db8::1]:41641"),
            latency_ms=st.integers(0, MAX_LATENCY_MS),
        ),
        st.builds(
            PeerPath,
            node_id=st.integers(),
            derp_region=st.integers(0),
            reason=st.sampled_from(Reason) | st.none(),
        ),
    ),
    max_size=20,
)


@given(PATHS)
def test_a_report_is_read_as_it_was_written(paths: list[PeerPath]) -> None:
    content = json.loads(json.dumps(report_json(NodePublic.zero(), paths)))
    assert parse_paths(content) == tuple(paths)


def test_a_report_is_bounded_on_both_sides() -> None:
    many = [PeerPath(node_id=number) for number in range(MAX_PATHS + 5)]
    content = report_json(NodePublic.zero(), many)
    assert len(parse_paths(content)) == MAX_PATHS
    content["Paths"].append(content["Paths"][0])
    with pytest.raises(MessageError):
        parse_paths(content)


@pytest.mark.parametrize(
    "paths", ["x", [1], [{"NodeID": "7"}], [{"Direct": True, "Endpoint": "x" * 61}], [{"Reason": 4}]]
)
def test_nonsense_is_refused(paths: object) -> None:
    with pytest.raises(MessageError):
        parse_paths({"Paths": paths})


def test_an_unknown_reason_is_none_and_odd_characters_vanish() -> None:
    (path,) = parse_paths(
        {"Paths": [{"NodeID": 1, "Direct": True, "Endpoint": "1.2\x1b.3.4:5\x00", "Reason": "because"}]}
    )
    assert path == PeerPath(node_id=1, endpoint="1.2.3.4:5")


@pytest.mark.parametrize(("said", "taken"), [(-5, 0), (10**12, MAX_LATENCY_MS)])
def test_a_latency_is_taken_within_bounds(said: int, taken: int) -> None:
    (path,) = parse_paths({"Paths": [{"NodeID": 1, "LatencyMS": said}]})
    assert path.latency_ms == taken


def test_every_reason_has_words() -> None:
    assert all(reason.words for reason in Reason)
