"""Generators of everything that goes over the wire, and of what should not."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from wire.control import Hostinfo, NetInfo, Service
from wire.derpmap import DERPMap, DERPNode, DERPRegion
from wire.keys import DiscoPublic, NodePublic
from wire.netmap import FilterRule, NetMap, Node, PeerChange, PortRange, UserProfile

key_bytes = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=24, max_size=24)
entropy = st.binary(min_size=32, max_size=32)
node_keys = st.builds(NodePublic, key_bytes)
disco_keys = st.builds(DiscoPublic, key_bytes)
words = st.text(string.ascii_letters + string.digits + " -_.äñ€", max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
labels = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=10)
times = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
ports = st.integers(0, 65535)
ipv4 = st.ip_addresses(v=4).map(str)
ip_addresses = st.ip_addresses().map(str)
addresses = st.tuples(
    st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None).map(str), ports
)
endpoints = st.lists(st.tuples(ipv4, ports).map(lambda pair: f"{pair[0]}:{pair[1]}"), max_size=4).map(tuple)
node_ids = st.integers(1, 2**53 - 1)

json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def latencies() -> st.SearchStrategy[dict[str, float]]:
    return st.dictionaries(labels, st.floats(0, 10, allow_nan=False), max_size=3)


def net_infos() -> st.SearchStrategy[NetInfo]:
    switch = st.none() | st.booleans()
    return st.builds(
        NetInfo,
        preferred_derp=st.integers(0, 65535),
        derp_latency=latencies(),
        working_udp=switch,
        working_ipv6=switch,
        mapping_varies_by_dest_ip=switch,
        os_has_ipv6=switch,
        have_port_map=st.booleans(),
        link_type=words,
        firewall_mode=words,
    )


def hostinfos() -> st.SearchStrategy[Hostinfo]:
    services = st.builds(Service, proto=words, port=ports, description=words)
    return st.builds(
        Hostinfo,
        hostname=texts,
        os=words,
        os_version=words,
        ipn_version=words,
        backend_log_id=words,
        distro=words,
        device_model=words,
        routable_ips=st.lists(words.filter(bool), max_size=3).map(tuple),
        request_tags=st.lists(words.filter(bool), max_size=3).map(tuple),
        services=st.lists(services, max_size=3).map(tuple),
        ssh_host_keys=st.lists(words.filter(bool), max_size=2).map(tuple),
        shields_up=st.booleans(),
        net_info=st.none() | net_infos(),
    )


def nodes(node_id: st.SearchStrategy[int] = node_ids) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        id=node_id,
        stable_id=labels,
        name=labels.map(lambda label: f"{label}.home.example."),
        key=node_keys,
        user=st.integers(0, 2**31),
        key_expiry=st.none() | times,
        disco_key=disco_keys,
        addresses=st.just(("100.64.0.1/32", "fd7a:115c:a1e0::1/128")),
        allowed_ips=st.none() | st.just(("100.64.0.1/32",)),
        endpoints=endpoints,
        home_derp=st.integers(0, 65535),
        hostinfo=st.dictionaries(labels, texts, max_size=3),
        created=st.none() | times,
        cap=st.integers(0, 200),
        tags=st.lists(labels.map("tag:{}".format), max_size=2).map(tuple),
        primary_routes=st.just(()) | st.just(("10.0.0.0/8",)),
        online=st.none() | st.booleans(),
        last_seen=st.none() | times,
        machine_authorized=st.booleans(),
        cap_map=st.dictionaries(labels, st.none() | st.lists(st.integers(0, 9), max_size=2), max_size=2),
        expired=st.booleans(),
    )


def peer_changes(node_id: st.SearchStrategy[int] = node_ids) -> st.SearchStrategy[PeerChange]:
    def settled(change: PeerChange) -> bool:
        return not (change.clears_key_expiry and change.key_expiry is not None)

    return st.builds(
        PeerChange,
        node_id=node_id,
        derp_region=st.integers(0, 65535),
        cap=st.integers(0, 200),
        cap_map=st.none() | st.dictionaries(labels, st.none(), max_size=2),
        endpoints=st.none() | endpoints,
        key=st.none() | node_keys,
        disco_key=st.none() | disco_keys,
        online=st.none() | st.booleans(),
        last_seen=st.none() | times,
        key_expiry=st.none() | times,
        clears_key_expiry=st.booleans(),
    ).filter(settled)


def filter_rules() -> st.SearchStrategy[FilterRule]:
    ranges = st.builds(PortRange, ip=st.just("*") | ip_addresses, first=ports, last=ports)
    return st.builds(
        FilterRule,
        sources=st.lists(ip_addresses, max_size=3).map(tuple),
        destinations=st.lists(ranges, max_size=3).map(tuple),
        protocols=st.lists(st.integers(0, 255), max_size=3).map(tuple),
    )


def derp_maps() -> st.SearchStrategy[DERPMap]:
    derp_nodes = st.builds(
        DERPNode,
        name=labels,
        region_id=st.integers(1, 65535),
        host_name=labels,
        cert_name=words,
        ipv4=st.just("") | st.just("none") | ipv4,
        ipv6=st.just("") | st.just("none"),
        stun_port=st.integers(-1, 65535),
        stun_only=st.booleans(),
        derp_port=ports,
        insecure_for_tests=st.booleans(),
        can_port80=st.booleans(),
    )
    regions = st.builds(
        DERPRegion,
        region_id=st.integers(1, 65535),
        region_code=labels,
        region_name=words,
        nodes=st.lists(derp_nodes, max_size=3).map(tuple),
        latitude=st.floats(-90, 90, allow_nan=False),
        longitude=st.floats(-180, 180, allow_nan=False),
        no_measure_no_home=st.booleans(),
    )
    return st.builds(
        DERPMap,
        regions=st.dictionaries(st.integers(1, 65535), regions, max_size=3),
        omit_default_regions=st.booleans(),
        region_scores=st.dictionaries(st.integers(1, 65535), st.floats(0, 5, allow_nan=False), max_size=2),
    )


def user_profiles() -> st.SearchStrategy[UserProfile]:
    return st.builds(
        UserProfile,
        id=st.integers(1, 9),
        login_name=labels,
        display_name=texts,
        profile_pic_url=labels,
    )


def netmaps() -> st.SearchStrategy[NetMap]:
    return st.builds(
        NetMap,
        node=nodes(),
        peers=st.lists(nodes(st.integers(1, 9)), max_size=5).map(
            lambda peers: {peer.id: peer for peer in sorted(peers, key=lambda peer: peer.id)}
        ),
    )


def any_case(content: Any, seed: int) -> Any:
    """The same JSON with every member's name in some other case, and null members strewn in."""
    chance = random.Random(seed)
    if isinstance(content, dict):
        items = list(content.items())
        chance.shuffle(items)
        strange = {
            "".join(chance.choice([c.lower(), c.upper()]) for c in name): value for name, value in items
        }
        return strange | {"NotAMember": None, "another": {"deep": [1, None]}}
    return content


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` in pieces, cut at these places (taken modulo its length)."""
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]
