"""A tailnet worth looking at: devices of every kind and state, keys, people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.browser.server import Device, Server
from wire.paths import PeerPath, Reason

NET_INFO = {
    "WorkingUDP": True,
    "WorkingIPv6": False,
    "MappingVariesByDestIP": False,
    "UPnP": True,
    "PreferredDERP": 900,
    "DERPLatency": {"900-v4": 0.0123, "901-v4": 0.0481},
}

# Every session is held, whatever was answered before.
SSH = """\
	"ssh": [
		{
			"action": "check",
			"src": ["autogroup:member"],
			"dst": ["autogroup:self"],
			"users": ["autogroup:nonroot", "root"],
			"checkPeriod": "always",
		},
	],
"""
FIRST_POLICY = '{\n\t"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],\n' + SSH + "}\n"


@dataclass
class Demo:
    """What was made; ``pending_url`` is the AuthURL of a machine that nobody has confirmed yet.

    ``ssh`` is a device of the owner's that takes SSH sessions, its id, and that of another one of theirs.
    """

    online: list[Device] = field(default_factory=list)
    pending: list[Device] = field(default_factory=list)
    pending_url: str = ""
    ssh: tuple[Device, int, int] | None = None

    def keep_up(self) -> None:
        """Keep the connected devices connected."""
        for device in self.online:
            device.catch_up()

    def ssh_check(self) -> str:
        """The path of the page about a session that begins now; it works for half an hour."""
        assert self.ssh is not None
        device, own, source = self.ssh
        path = device.holds_ssh(source, own, "deploy")
        device.close()
        return path

    def close(self) -> None:
        for device in (*self.online, *self.pending):
            device.close()


def _key(server: Server, *options: str) -> str:
    return str(server.command("createauthkey", "default", *options, "--json")["key"])


def _ids(server: Server) -> dict[str, int]:
    return {one["hostname"]: int(one["id"]) for one in server.command("listnodes", "default", "--json")}


def tell_paths(server: Server, demo: Demo) -> None:
    """Pairs of every kind: direct, relayed for reasons, idle."""
    ids = _ids(server)
    atlas, borealis, calypso, laptop, *_ = demo.online

    def path(name: str, **facts: Any) -> PeerPath:
        return PeerPath(node_id=ids[name], **facts)

    atlas.tells_paths(
        path("borealis", endpoint="10.20.0.8:41641", latency_ms=1),
        path("calypso", endpoint="203.0.113.7:41641", latency_ms=34),
        path("workstation", derp_region=900, reason=Reason.UDP_BLOCKED_THERE),
    )
    borealis.tells_paths(
        path("atlas", endpoint="10.20.0.7:41641", latency_ms=1),
        path("maria-macbook-pro", derp_region=900, reason=Reason.HARD_NAT_BOTH),
    )
    calypso.tells_paths(
        path("atlas", endpoint="198.51.100.20:41641", latency_ms=34),
        path("workstation", derp_region=900, reason=Reason.IDLE),
    )
    laptop.tells_paths(
        path("borealis", derp_region=900, reason=Reason.HARD_NAT_BOTH),
        path("calypso", endpoint="203.0.113.7:41641", latency_ms=52),
    )


def furnish(server: Server, extra: Sequence[str] = ()) -> Demo:
    """Fill the first tailnet, through the same doors that people and machines use; ``extra`` devices too."""
    demo = Demo()
    policy = server.data / "policy.hujson"
    policy.write_text(FIRST_POLICY)
    server.command("setpolicy", "default", str(policy), "--json")
    server.sign_in_link("maria.fernandez@example.com", "--tailnet", "default", "--role", "admin")
    server.sign_in_link("carlos.ruiz@example.com", "--tailnet", "default", "--role", "network-admin")
    mine = _key(server, "--reusable", "--preapproved")
    hers = _key(server, "--reusable", "--preapproved", "--user", "maria.fernandez@example.com")
    tagged = _key(server, "--reusable", "--preapproved", "--tag", "tag:server", "--tag", "tag:prod")
    waiting = _key(server, "--reusable")
    _key(server, "--ephemeral", "--tag", "tag:ci", "--expiry", "7d")
    online = [
        (
            "atlas",
            "linux",
            tagged,
            {"Distro": "debian", "RoutableIPs": ["10.20.0.0/16", "0.0.0.0/0", "::/0"]},
        ),
        ("borealis", "linux", tagged, {"Distro": "ubuntu", "App": "trenza"}),
        (
            "calypso",
            "linux",
            tagged,
            {"Distro": "debian", "RoutableIPs": ["10.30.0.0/16", "0.0.0.0/0", "::/0"]},
        ),
        ("maria-macbook-pro", "macOS", hers, {}),
        ("workstation", "windows", mine, {}),
        ("pixel-9", "android", mine, {}),
    ]
    for name, system, key, more in online:
        device = Device(server, name, system=system, NetInfo=NET_INFO, **more)
        device.register(auth_key=key)
        device.listen()
        demo.online.append(device)
    server.command("approveroutes", "default", "calypso", "--json")
    tell_paths(server, demo)
    for name, system, key in (("ipad-de-maria", "iOS", hers), ("backup", "linux", tagged)):
        Device(server, name, system=system).join(auth_key=key)
    for name in extra:
        Device(server, name, NetInfo=NET_INFO).join(auth_key=mine)
    thinkpad = Device(server, "old-thinkpad")
    thinkpad.join(auth_key=mine)
    ids = _ids(server)
    demo.ssh = (thinkpad, ids["old-thinkpad"], ids[extra[0] if extra else "workstation"])
    for name, system in (("raspberry-pi", "linux"), ("guest-laptop", "windows")):
        device = Device(server, name, system=system)
        device.register(auth_key=waiting)
        demo.pending.append(device)
    unknown = Device(server, "maria-iphone", system="iOS")
    demo.pending_url = str(unknown.register()["AuthURL"])
    unknown.close()
    return demo
