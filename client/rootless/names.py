"""What names stand for to programs that use a proxy: as if their DNS were led to the tailnet's resolver.

Without root nothing of the host is changed, so its own resolver knows neither the tailnet's settings nor an
exit node: while one is wanted it is asked nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from client.dns.names import normal
from client.prefixes import IPAddress
from client.proxy.dialer import LookUp, Unresolved, ask_host


class Resolving(Protocol):
    """What is needed of :class:`client.dns.service.Dns`."""

    @property
    def search(self) -> tuple[str, ...]: ...
    def leads_here(self, name: str, /) -> bool: ...
    async def addresses(self, name: str, /) -> list[IPAddress]: ...


class Names:
    """``hides`` says whether an exit node is wanted, be it there or not."""

    def __init__(self, dns: Resolving, hides: Callable[[], bool], ask_host: LookUp = ask_host) -> None:
        self._dns = dns
        self._hides = hides
        self._ask_host = ask_host

    async def look_up(self, host: str) -> list[IPAddress]:
        """At least one address; raises :class:`Unresolved`."""
        name = normal(host)
        for candidate in self._candidates(name):
            if found := await self._dns.addresses(candidate):
                return found
        if self._hides() or (name and self._dns.leads_here(name)):
            raise Unresolved(f"no address is known for {host[:80]!r}")
        return await self._ask_host(host)

    def _candidates(self, name: str | None) -> list[str]:
        if not name:
            return []
        below = [f"{name}.{domain}" for domain in self._dns.search] if "." not in name else []
        return [candidate for candidate in (*below, name) if self._dns.leads_here(candidate)]
