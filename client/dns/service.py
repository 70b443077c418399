"""The node's DNS as a whole: the resolver on the service addresses, and this host's programs led to it.

It follows the netmap and the preferences, looks every few seconds whether all still stands, and tells in
:attr:`Dns.trouble` what does not; the tunnel never waits for it. ``stop`` puts the host back as it was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from client.dns.answers import Unreadable, addresses_in, describe, make_query
from client.dns.config import Config, Upstream, Upstreams, make_config, same_names
from client.dns.names import ancestors
from client.dns.resolver import Resolver
from client.dns.server import DnsServer
from client.errors import ClientError, SetupError
from client.net.hostdns import HostConfig, HostDns
from client.net.serviceaddresses import SERVICE4, SERVICE_ADDRESSES, put_service_addresses
from client.prefixes import IPAddress, tailnet_addresses
from client.prefs import Prefs
from wire.derpmap import DERPMap
from wire.netmap import NetMap, Node

logger = logging.getLogger("trenzad.dns")

CHECK_SECONDS = 5.0
FOLLOW_SECONDS = 4.0  # the tunnel waits no longer; the watch has all the time it needs
# Another program that writes resolv.conf again and again is not fought: so often in so long, then no more.
MAX_REPAIRS = 3
REPAIR_SECONDS = 600.0
MAX_BASE = 8
ADDRESS_KINDS = ("A", "AAAA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """``accept``: this host's programs are led to our resolver; ``hidden``: an exit node is wanted."""

    netmap: NetMap
    accept: bool = True
    hidden: bool = False
    exit_node: Node | None = None
    control_host: str = ""

    def same_config(self, other: Wanted | None) -> bool:
        return (
            other is not None
            and (self.hidden, self.control_host) == (other.hidden, other.control_host)
            and (self.exit_node is other.exit_node or self.exit_node == other.exit_node)
            and self.netmap.derp_map == other.netmap.derp_map
            and (self.netmap is other.netmap or same_names(other.netmap, self.netmap))
        )


class Dns:
    """``touch_host`` false: nothing of the host is changed, :attr:`resolver` answers inside alone."""

    def __init__(
        self,
        *,
        interface: str,
        host: HostDns,
        on_trouble: Callable[[], None] = lambda: None,
        touch_host: bool = True,
        server: DnsServer | None = None,
        resolver: Resolver | None = None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self.resolver = resolver or Resolver()
        self.trouble = ""
        self._interface = interface
        self._host = host
        self._on_trouble = on_trouble
        self._touch_host = touch_host
        self._server = server or DnsServer(self.resolver)
        self._check_seconds = check_seconds
        self._wanted: Wanted | None = None
        self._installed: HostConfig | None = None
        self._may_be_installed = True  # by a daemon that was killed
        self._addresses: tuple[str, ...] = ()
        self._repairs: list[float] = []  # loop times
        self._changing = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    # --- following ---------------------------------------------------------------------------------------

    async def follow(self, wanted: Wanted) -> None:
        """Make it so; what fails is in :attr:`trouble`, and tried again."""
        async with self._changing:
            before, self._wanted = self._wanted, wanted
            if not wanted.same_config(before):
                self.resolver.config = _config(wanted)
                if before is not None and before.hidden != wanted.hidden:
                    await self.resolver.close()  # no connection goes on beside the exit node, or to it
            if self._watch is None:
                self._watch = asyncio.create_task(self._keep_watch())
            try:
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await self._try(self._apply(wanted))
            except TimeoutError:  # a host that answers slowly must not hold up the tunnel
                self._say("DNS: this host takes long to be told who answers names; trenzad tries on")

    async def stop(self) -> None:
        """Put everything back, also what a killed daemon left; raises :class:`SetupError` for what stays."""
        if (watch := self._watch) is not None:
            self._watch = None
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        async with self._changing:
            self._wanted = self._installed = None
            self._repairs.clear()
            self._say("")
            await self._server.close()
            await self.resolver.close()
            if self._touch_host:
                await self._host.remove()
            self._may_be_installed = False

    async def _apply(self, wanted: Wanted) -> None:
        self.resolver.config = self.resolver.config.with_base(_upstreams(self._host.base()))
        if not self._touch_host:
            return
        self._addresses = await put_service_addresses(self._interface)
        if not self._server.is_serving:
            await self._server.start(self._addresses)
        config = self.resolver.config
        if wanted.accept and not config.is_empty:
            await self._lead_here(config)
        elif self._may_be_installed:
            await self._host.remove()
            self._installed, self._may_be_installed = None, False

    async def _lead_here(self, config: Config) -> None:
        """Have this host's programs ask us, as far as there is something to ask."""
        host = self._host
        asked = HostConfig(SERVICE4, config.search, config.match_domains, config.takes_all)
        if asked == self._installed and await host.is_installed():
            return
        if asked == self._installed:
            self._count_repair()
        self._may_be_installed = True
        await host.install(asked)
        self._installed = asked
        # Only now it is clear who rules here, and what was before.
        self.resolver.config = config.with_base(_upstreams(host.base()))

    def _count_repair(self) -> None:
        """Raises :class:`SetupError` when somebody else insists: the host is theirs until they rest."""
        now = asyncio.get_running_loop().time()
        self._repairs = [moment for moment in self._repairs if now - moment < REPAIR_SECONDS]
        if len(self._repairs) >= MAX_REPAIRS:
            raise SetupError(
                f"another program keeps changing this host's DNS ({self._host.manager}), so names of the "
                "tailnet may not be found: have it leave DNS alone, or use trenza set --accept-dns=false"
            )
        self._repairs.append(now)
        logger.info("another program has changed this host's DNS (%s); setting it again", self._host.manager)

    # --- watching ----------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            async with self._changing:
                if self._wanted is not None:
                    await self._try(self._apply(self._wanted))

    async def _try(self, work: Any) -> None:
        try:
            await work
        except ClientError as error:
            self._say(f"DNS: {error}")
        except Exception:  # a bug must not end the watch: said, and tried again
            logger.exception("DNS failed")
            self._say("DNS: trenzad failed, see its log")
        else:
            self._say("")

    def _say(self, text: str) -> None:
        if text != self.trouble:
            self.trouble = text
            if text:
                logger.warning("%s", text)
            self._on_trouble()

    # --- questions ---------------------------------------------------------------------------------------

    async def answer_peer(self, query: bytes) -> bytes:
        """The answer to a peer that uses this exit node; raises :class:`ClientError` for what is no query."""
        answer = await self.resolver.answer_peer(query)
        if answer is None:
            raise ClientError("a malformed question")
        return answer

    @property
    def search(self) -> tuple[str, ...]:
        """The domains in which names of one word are looked for first."""
        return self.resolver.config.search

    def leads_here(self, name: str) -> bool:
        """Whether this host's programs are to ask for a name here: the tailnet has a say, or it is hidden."""
        wanted, config = self._wanted, self.resolver.config
        if wanted is None or not (wanted.accept or wanted.hidden):
            return False
        return wanted.hidden or config.takes_all or any(up in config.routes for up in ancestors(name))

    async def addresses(self, name: str) -> list[IPAddress]:
        """What a name stands for, IPv4 first; none when there is no such name, or nobody answers."""
        answers = await asyncio.gather(*(self._ask(name, kind) for kind in ADDRESS_KINDS))
        return [address for found in answers for address in found]

    async def _ask(self, name: str, kind: str) -> list[IPAddress]:
        try:
            answer = await self.resolver.answer(make_query(name, kind))
        except ValueError:  # a name that DNS can have none of
            return []
        texts = addresses_in(answer.wire, kind) if answer is not None else []
        return [ipaddress.ip_address(text) for text in texts]

    async def query(self, name: str, kind: str) -> dict[str, Any]:
        """What this node answers to a question; raises :class:`ClientError`."""
        try:
            answer = await self.resolver.answer(make_query(name, kind))
            code, records = describe(answer.wire) if answer is not None else ("", [])
        except ValueError as error:
            raise ClientError(f"no such question: {name[:100]!r} {kind[:20]!r} ({error})") from error
        except Unreadable as error:
            raise ClientError(f"the answer cannot be read: {error}") from error
        return {
            "Name": name,
            "QueryType": kind,
            "ResponseCode": code,
            "AnsweredBy": answer.source if answer is not None else "",
            "Answers": [_record(line) for line in records],
        }

    def status(self) -> dict[str, Any]:
        """What holds now, in JSON's types."""
        config = self.resolver.config
        return {
            "Serving": list(self._addresses) if self._server.is_serving else [],
            "Manager": self._host.manager,
            "Search": list(config.search),
            "Routes": {name: list(map(str, upstreams)) for name, upstreams in sorted(config.routes.items())},
            "Default": None if config.default is None else list(map(str, config.default)),
            "Host": list(map(str, config.base)),
            "Names": len(config.hosts),
            "Trouble": self.trouble,
        }


def wanted_dns(netmap: NetMap, prefs: Prefs, control_url: str) -> Wanted:
    """What a netmap and the preferences ask for."""
    return Wanted(
        netmap=netmap,
        accept=prefs.accept_dns,
        hidden=prefs.uses_exit_node,
        exit_node=_exit_node(netmap, prefs),
        control_host=urlsplit(control_url).hostname or "",
    )


def _exit_node(netmap: NetMap, prefs: Prefs) -> Node | None:
    for peer in netmap.peers.values():
        if prefs.exit_node_id and peer.stable_id == prefs.exit_node_id:
            return peer
        if prefs.exit_node_ip and prefs.exit_node_ip in map(str, tailnet_addresses(peer.addresses)):
            return peer
    return None


def _config(wanted: Wanted) -> Config:
    return make_config(
        wanted.netmap,
        hidden=wanted.hidden,
        exit_node=wanted.exit_node,
        infrastructure=[wanted.control_host, *relay_names(wanted.netmap.derp_map)],
    )


def relay_names(derp_map: DERPMap) -> list[str]:
    """The relays whose addresses only DNS knows."""
    nodes = (node for region in derp_map.regions.values() for node in region.nodes)
    return [node.host_name for node in nodes if not node.ipv4 and not node.ipv6]


def _upstreams(texts: tuple[str, ...]) -> Upstreams:
    parsed = (Upstream.parse(text.partition("%")[0]) for text in texts[:MAX_BASE])
    return tuple(one for one in parsed if one is not None and one.host not in SERVICE_ADDRESSES)


def _record(line: str) -> dict[str, Any]:
    """``name ttl class type body`` as members."""
    name, ttl, _, kind, body = [*line.split(" ", 4), "", "", "", ""][:5]
    return {"Name": name, "TTL": int(ttl) if ttl.isdecimal() else 0, "Type": kind, "Body": body}
