"""A home router that forwards ports on request: miniupnpd on a router of the lab."""

from __future__ import annotations

from pathlib import Path

from tests.lab.net import RULES, Router
from tests.lab.processes import Daemon

MINIUPNPD = "/usr/sbin/miniupnpd"
# What miniupnpd adds is accepted by the router's own forward chain (of two chains that both decide, a drop
# wins); its source rule comes before the router's masquerade.
TABLE = """
table inet miniupnpd {
  chain forwarded { }
  chain in { }
  chain out { }
  chain forward { type filter hook forward priority -10; policy accept; jump forwarded; }
  chain prerouting { type nat hook prerouting priority dstnat; jump in; }
  chain postrouting { type nat hook postrouting priority 99; jump out; }
}
"""
CONFIG = """
ext_ifname=wan
listening_ip=lan
ext_ip={public}
enable_natpmp={pcp}
enable_upnp={upnp}
secure_mode=yes
system_uptime=yes
uuid=00000000-0000-0000-0000-000000000001
upnp_table_name=miniupnpd
upnp_nat_table_name=miniupnpd
upnp_forward_chain=forwarded
upnp_nat_chain=in
upnp_nat_postrouting_chain=out
lease_file={folder}/leases
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class PortMapper:
    """miniupnpd on ``router``: PCP and NAT-PMP, or UPnP. It insists on a public address: ``public`` is added.

    Whoever is to reach that needs a route; see :meth:`known_to`.
    """

    def __init__(self, router: Router, public: str, *, pcp: bool = False, upnp: bool = False) -> None:
        self.router = router
        self.public = public
        folder: Path = router.namespace.folder
        config = folder / "miniupnpd.conf"
        words = {True: "yes", False: "no"}
        config.write_text(CONFIG.format(public=public, pcp=words[pcp], upnp=words[upnp], folder=folder))
        command = [MINIUPNPD, "-d", "-f", str(config), "-P", str(folder / "miniupnpd.pid")]
        self.daemon = Daemon(router.namespace, command, folder / "miniupnpd.log")

    def start(self) -> PortMapper:
        rules = RULES.format(masquerade=self.router.nat.value, udp="ct status dnat accept")
        self.router.namespace.rules(rules + TABLE)
        self.router.namespace.ip(f"addr add {self.public}/32 dev wan")
        self.daemon.start()
        return self

    def known_to(self, other: Router) -> None:
        """Let another router reach the public address."""
        other.namespace.ip(f"route add {self.public}/32 via {self.router.namespace.address4}")

    def forwarded(self) -> str:
        """The router's redirections as nftables has them."""
        return self.router.namespace.run("nft", "list", "chain", "inet", "miniupnpd", "in").stdout
