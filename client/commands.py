"""What a person, a script or the server asks of the node: each command whole, one change at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from client.backend import Backend
from client.control.loop import Login, tell_logout
from client.errors import ClientError, ControlError, PeerNotFound, PrefsError
from client.hostinfo import own_hostname, program_version
from client.magicsock.endpoints import format_address
from client.magicsock.sock import PathStatus, PingResult
from client.oauthkey import parse_auth_key
from client.peerapi.rights import behind_shields
from client.prefs import Prefs
from client.status import Situation, find_node, netcheck_json, status_json, whois_json
from client.tunnel import Sock
from wire.netmap import NetMap, Node

LOGOUT_SECONDS = 5.0
SERVER_PING_SECONDS = 10.0
ROTATION_SECONDS = 60.0
NO_SERVER = (
    "no server is set: give trenza up --login-server=URL, or start trenzad with TRENZA_CONTROL_URL set"
)


class Commands:
    """Acts on a :class:`client.backend.Backend`; every method raises :class:`client.errors.ClientError`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        backend.rotate = self.rotate
        self._changing = asyncio.Lock()  # one login, logout or rotation at a time

    # --- changes -----------------------------------------------------------------------------------------

    async def up(self, changes: Mapping[str, Any], *, auth_key: str = "", force_reauth: bool = False) -> None:
        """Come up, signing in first where that is needed; how it goes is told to watchers."""
        async with self._changing:
            backend, identity = self._backend, self._backend.store.identity
            prefs = backend.store.prefs.edited({**changes, "WantRunning": True, "LoggedOut": False})
            url = prefs.control_url or backend.default_url
            if not url:
                raise PrefsError(NO_SERVER)
            login = Login(url=url, prefs=prefs.edited({"ControlURL": url}), auth_key=parse_auth_key(auth_key))
            known = identity.node is not None and identity.control_url == url
            if known and backend.facts.key_good and not force_reauth:
                backend.come_up(login.prefs, if_refused=login)
            else:
                backend.begin_login(login)
            backend.reconcile()

    def edit_prefs(self, changes: Mapping[str, Any]) -> Prefs:
        """Change what can be changed without signing in."""
        backend = self._backend
        prefs = backend.store.prefs.edited(changes)
        if prefs.control_url != backend.store.prefs.control_url:
            raise PrefsError("the server is changed by signing in to it: trenza up --login-server=URL")
        backend.set_prefs(prefs)
        backend.reconcile()
        return prefs

    async def down(self) -> None:
        """Stop: no tunnel, no control session. Returns when the tunnel is down."""
        async with self._changing:
            backend = self._backend
            backend.cancel_login()
            backend.set_prefs(backend.store.prefs.edited({"WantRunning": False}))
            await backend.settle()

    async def logout(self) -> str:
        """End this node's key and forget it; returns a warning when the server could not be told."""
        async with self._changing:
            backend = self._backend
            backend.cancel_login()
            warning = ""
            try:
                async with asyncio.timeout(LOGOUT_SECONDS):
                    await tell_logout(backend.store, backend.dialer, backend.kind, backend.hostinfo())
            except (ControlError, TimeoutError) as error:
                why = str(error) or "it did not answer"
                warning = f"signed out here, but the server was not told ({why}): remove the device there"
            backend.set_prefs(backend.store.prefs.edited({"WantRunning": False, "LoggedOut": True}))
            backend.forget_node()
            await backend.settle()
            return warning

    async def rotate(self) -> None:
        """A new node key, same node and addresses."""
        async with self._changing:
            backend = self._backend
            if backend.control is None or backend.login is not None or backend.store.identity.node is None:
                raise ControlError("there is no node key to rotate: trenza up first")
            try:
                async with asyncio.timeout(ROTATION_SECONDS):  # others wait for us: down and logout
                    await backend.control.rotate()
            except TimeoutError:
                raise ControlError("the server does not take a new key in time: try again later") from None
            backend.report_changed.set()
            backend.netmaps.save_soon()
            await backend.settle()

    # --- accounts ----------------------------------------------------------------------------------------

    def profiles(self) -> list[dict[str, Any]]:
        """The accounts of this device, as ``tailscale switch --list --json`` has them."""
        profiles = self._backend.store.profiles
        return [
            {
                "id": profile.id,
                "nickname": profile.account,
                "tailnet": profile.tailnet,
                "account": profile.account,
                "controlURL": profile.control_url,
                "selected": profile.id == profiles.current_id,
            }
            for profile in profiles.all
        ]

    async def switch(self, text: str) -> bool:
        """Use the account of this ID, tailnet or name; ``False`` when it is in use already."""
        async with self._changing:
            store = self._backend.store
            wanted = store.profiles.find(text).id
            if wanted == store.profiles.current_id:
                return False
            await self._backend.change_account(lambda: store.switch(wanted))
            return True

    async def new_profile(self) -> str:
        """Use a new account, unless the one in use never signed in; returns the ID of the one before."""
        async with self._changing:
            store = self._backend.store
            before, identity = store.profiles.current_id, store.identity
            if identity.node is not None or identity.pending is not None:
                await self._backend.change_account(store.new_profile)
            return before

    def remove_profile(self, text: str) -> None:
        store = self._backend.store
        store.remove_profile(store.profiles.find(text).id)

    # --- questions ---------------------------------------------------------------------------------------

    async def ping(self, target: str, seconds: float) -> dict[str, Any]:
        """One disco ping; also raises ``PeerNotFound``, ``PingTimeout``."""
        netmap, sock = self._running()
        node = find_node(netmap, target)
        if node is None:
            raise PeerNotFound(f"no peer {target!r}: trenza status lists them")
        if node.id == netmap.node.id:
            return pong(node, None) | {"IsLocalIP": True}
        return pong(node, await sock.ping(node.id, seconds))

    async def ping_for_server(self, ip: str) -> dict[str, Any]:
        """A PingResponse, whatever comes of it."""
        try:
            return {"Type": "disco", "IP": ip} | await self.ping(ip, SERVER_PING_SECONDS)
        except ClientError as error:
            return {"Type": "disco", "IP": ip, "Err": str(error)}

    async def netcheck(self) -> dict[str, Any]:
        netmap, sock = self._running()
        return netcheck_json(await sock.netcheck(), netmap.derp_map, now=self._backend.now())

    def whois(self, text: str) -> dict[str, Any]:
        node = find_node(self.netmap(), text)
        if node is None:
            raise PeerNotFound(f"no node {text!r} in this tailnet")
        netmap = self.netmap()
        shown = behind_shields(netmap) if self._backend.store.prefs.shields_up else netmap
        return whois_json(shown, node)

    def dns_status(self) -> dict[str, Any]:
        """How names are found here now, and what the server wants of that."""
        prefs, netmap, dns = self._backend.store.prefs, self._backend.netmap, self._backend.dns
        return {
            "AcceptDNS": prefs.accept_dns,
            "Running": self._backend.tunnel.is_up,
            "MagicDNS": netmap is not None and netmap.dns_config.proxied,
            "MagicDNSSuffix": netmap.magic_dns_suffix if netmap else "",
            "DNSName": netmap.node.name if netmap else "",
            "Config": netmap.dns_config.to_json() if netmap else {},
            "Resolver": dns.status() if dns is not None else {},
        }

    async def dns_query(self, name: str, kind: str) -> dict[str, Any]:
        """A question to this node's own resolver, whether the host's programs are led to it or not."""
        if self._backend.dns is None or not self._backend.tunnel.is_up:
            raise ClientError(f"the tunnel is not up (state {self._backend.state}): trenza up first")
        return await self._backend.dns.query(name, kind)

    def netmap(self) -> NetMap:
        netmap = self._backend.netmap
        if netmap is None:
            raise ClientError(f"there is no network map yet (state {self._backend.state}): trenza up first")
        return netmap

    def _running(self) -> tuple[NetMap, Sock]:
        netmap, sock = self.netmap(), self._backend.tunnel.sock
        if sock is None:
            raise ClientError(f"the tunnel is not up (state {self._backend.state}): trenza up first")
        return netmap, sock

    def status(self, *, peers: bool = True) -> dict[str, Any]:
        backend, identity = self._backend, self._backend.store.identity
        situation = Situation(
            version=program_version(),
            state=backend.state,
            tun=not backend.tunnel.is_userspace,
            node_key=identity.node.public() if identity.node else None,
            auth_url=backend.login.auth_url if backend.login else "",
            health=backend.health(),
            control_url=backend.control_url,
            carrier=str(backend.kind),
            connected=backend.is_connected,
            hostname=own_hostname(backend.store.prefs),
            now=backend.now(),
            netmap=backend.netmap,
            endpoints=[str(endpoint) for endpoint in backend.follower.endpoints],
            home_region=backend.follower.home_region,
            paths=self.paths() if peers else {},
            prefs=backend.store.prefs,
        )
        return status_json(situation, peers=peers)

    def paths(self) -> dict[int, PathStatus]:
        """How each peer is reached, by node ID."""
        sock, netmap = self._backend.tunnel.sock, self._backend.netmap
        paths = {}
        if sock is not None and netmap is not None:
            for node_id in netmap.peers:
                try:
                    paths[node_id] = sock.path_status(node_id)
                except PeerNotFound:  # the newest netmap is not in the tunnel yet
                    continue
        return paths


def pong(node: Node, result: PingResult | None) -> dict[str, Any]:
    """A PingResult as tailscale ipn/ipnstate has it; ``result`` ``None`` = this node itself."""
    address = node.addresses[0].partition("/")[0] if node.addresses else ""
    content: dict[str, Any] = {
        "IP": address,
        "NodeIP": address,
        "NodeName": node.name.partition(".")[0],
        "LatencySeconds": result.latency if result else 0.0,
    }
    if result is not None and result.endpoint is not None:
        content["Endpoint"] = format_address(result.endpoint)
    elif result is not None:
        content |= {
            "DERPRegionID": result.derp_region,
            "DERPRegionCode": result.derp_code,
            "RelayReason": result.reason.words if result.reason else "",
        }
    return content
