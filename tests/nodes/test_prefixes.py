"""Where what overlaps a prefix is looked for: nothing that overlaps it may be missed."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.tenancy import scope
from nodes import routing
from nodes.models import Route
from nodes.prefixes import Overlapping, near
from tests.accounts import factories
from tests.nodes.factories import node as join
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]


def network(kind: type[IPv4Network] | type[IPv6Network], bits: int) -> st.SearchStrategy[str]:
    """Prefixes of one family; groups of zeros, which IPv6 writes shorter, are as frequent as others."""
    groups = st.lists(st.sampled_from([0, 1, 10, 0xFFFF]), min_size=bits // 16, max_size=bits // 16)
    first = groups.map(lambda parts: sum(part << (16 * place) for place, part in enumerate(parts)))
    return st.builds(
        lambda number, length: str(kind((number, length), strict=False)), first, st.integers(1, bits)
    )


PREFIXES = network(IPv4Network, 32) | network(IPv6Network, 128)


@given(PREFIXES, st.data())
def test_everything_inside_and_around_is_found(prefix: str, data: Any) -> None:
    wanted = ip_network(prefix)
    wider, beginning = near(prefix)
    assert set(wider) == {
        str(wanted.supernet(new_prefix=length)) for length in range(1, wanted.prefixlen + 1)
    }
    length = data.draw(st.integers(wanted.prefixlen, wanted.max_prefixlen))
    offset = data.draw(st.integers(0, wanted.num_addresses - 1))
    inside = type(wanted)((int(wanted.network_address) + offset, length), strict=False)
    assert inside == wanted or str(inside).startswith(beginning)


@pytest.mark.parametrize(
    ("prefix", "beginning"),
    [
        ("10.0.0.0/7", ""),
        ("10.7.0.0/20", "10.7."),
        ("10.7.1.2/32", "10.7.1.2."),
        ("fd00:7::/64", "fd00:7:"),
        ("2001:db8:10::/44", "2001:db8:"),
        ("::1:0:0:0:0/64", ""),
    ],
)
def test_how_those_inside_begin(prefix: str, beginning: str) -> None:
    assert near(prefix)[1] == beginning


@pytest.mark.django_db
def test_a_switch_reads_what_is_near_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet, owner = factories.tailnet()
    told = ["10.0.0.0/8", "10.7.1.0/24"]
    offered = ["10.7.0.0/16", *told, *(f"172.16.{number}.0/24" for number in range(50)), "fd00:7::/64"]
    hostinfo = {"Hostname": "gate", "RoutableIPs": offered}
    node = join(tailnet, owner, preapproved=True, hostinfo=hostinfo)
    read: list[set[str]] = []

    class Watched(Overlapping):
        def __init__(self, prefixes: Any) -> None:
            read.append(set(prefixes))
            super().__init__(prefixes)

    monkeypatch.setattr(routing, "Overlapping", Watched)
    with scope(tailnet=tailnet):
        route = Route.objects.get(prefix="10.7.0.0/16", node=node)
    answer = Visitor(owner).submit(f"/routes/{route.pk}", page="/routes", approved="1")
    assert read == [{"10.7.0.0/16", *told}]
    for prefix in told:
        assert prefix in answer.content.decode()
