"""The DERP map: round trips, the reference's own, and what is no map."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import RECORDINGS
from tests.wire.strategies import derp_maps, json_values
from wire.codec import decode_object, encode_json
from wire.derpmap import DERPMap, DERPNode, DERPRegion
from wire.errors import MessageError, WireError


@given(derp_maps())
def test_maps_round_trip(derp_map: DERPMap) -> None:
    assert DERPMap.from_json(decode_object(encode_json(derp_map.to_json()))) == derp_map


def test_the_references_map_is_read() -> None:
    derp_map = DERPMap.from_json(RECORDINGS["map_response"]["DERPMap"])
    assert derp_map.region_scores == {900: 0.5}
    (node,) = derp_map.regions[900].nodes
    assert (node.effective_derp_port, node.effective_stun_port, node.pinned_sha256) == (3340, 3478, "ab")


def test_defaults_of_a_node() -> None:
    node = DERPNode(name="1a", region_id=1, host_name="h")
    assert (node.effective_derp_port, node.effective_stun_port, node.pinned_sha256) == (443, 3478, None)
    assert DERPNode(name="1a", region_id=1, host_name="h", stun_port=-1).effective_stun_port is None


def test_null_regions_are_left_out() -> None:
    assert DERPMap.from_json({"Regions": {"1": None}}).regions == {}
    assert DERPMap.from_json({"Regions": None}).regions == {}


@pytest.mark.parametrize(
    "content",
    [
        {"Regions": [1]},
        {"Regions": {"0": {"RegionID": 0}}},
        {"Regions": {"65536": {"RegionID": 65536}}},
        {"Regions": {"²": {"RegionID": 2}}},
        {"Regions": {"9" * 5000: {"RegionID": 2}}},
        {"Regions": {"1": 5}},
        {"Regions": {"1": {"Nodes": 5}}},
        {"Regions": {"1": {"Nodes": [5]}}},
        {"HomeParams": 5},
        {"HomeParams": {"RegionScore": [1]}},
        {"HomeParams": {"RegionScore": {"1": "fast"}}},
        {"HomeParams": {"RegionScore": {"1": {}}}},
    ],
)
def test_what_is_no_map_is_a_declared_error(content: Any) -> None:
    with pytest.raises(MessageError):
        DERPMap.from_json(content)


@given(
    st.fixed_dictionaries(
        {}, optional={"Regions": json_values, "HomeParams": json_values, "omitDefaultRegions": json_values}
    )
    | st.fixed_dictionaries({"Regions": st.dictionaries(st.text(max_size=6), json_values, max_size=3)})
)
def test_hostile_maps_are_values_or_declared_errors(content: dict[str, Any]) -> None:
    with contextlib.suppress(WireError):
        DERPMap.from_json(content)


def test_regions_are_sent_in_order_and_whole() -> None:
    regions = {
        number: DERPRegion(region_id=number, region_code="c", region_name="n") for number in (902, 900)
    }
    content = DERPMap(regions=regions).to_json()
    assert list(content["Regions"]) == ["900", "902"]
    assert content["Regions"]["900"]["Nodes"] == []
