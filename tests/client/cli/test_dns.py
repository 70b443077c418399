"""``trenza dns`` in words."""

from __future__ import annotations

from typing import Any

from client.cli.dns import describe

RESOLVER: dict[str, Any] = {
    "Manager": "systemd-resolved",
    "Search": ["tail.example"],
    "Routes": {"64.100.in-addr.arpa": [], "corp.example": ["10.0.0.1"], "tail.example": []},
    "Default": None,
    "Host": ["192.168.1.1"],
    "Trouble": "",
}
CONTENT: dict[str, Any] = {
    "AcceptDNS": True,
    "Running": True,
    "MagicDNS": True,
    "MagicDNSSuffix": "tail.example",
    "DNSName": "box.tail.example.",
    "Config": {"Proxied": True, "ExtraRecords": [{"Name": "printer.tail.example", "Value": "10.1.1.1"}]},
    "Resolver": RESOLVER,
}


def said(**changes: Any) -> str:
    resolver = RESOLVER | {name: value for name, value in changes.items() if name in RESOLVER}
    content = CONTENT | {name: value for name, value in changes.items() if name not in RESOLVER}
    return "\n".join(describe(content | {"Resolver": resolver}))


def test_what_holds_is_said() -> None:
    text = said()
    for words in (
        "used, through systemd-resolved",
        "on, this device is box.tail.example",
        "192.168.1.1 (as this host is set up)",
        "corp.example -> 10.0.0.1",
        "tail.example -> (answered here)",
        "printer.tail.example A/AAAA 10.1.1.1",
    ):
        assert words in text, words
    assert "in-addr.arpa" not in text


def test_the_other_cases() -> None:
    assert "not used on this device" in said(AcceptDNS=False)
    assert "the tunnel is down" in said(Running=False)
    assert "nothing to install" in said(Manager="")
    assert "off in this tailnet" in said(MagicDNS=False)
    assert "Resolvers for everything else:\n  9.9.9.9" in said(Default=["9.9.9.9"])
    assert "an exit node is wanted" in said(Default=[])
    assert "Trouble: it is read-only" in said(Trouble="it is read-only")
    assert "trenza up first" in said(Config={})
