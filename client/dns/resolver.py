"""One query from somebody on this host, or from a peer that uses this exit node: its answer, always."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import dns.rcode

from client.dns.answers import (
    Question,
    Unreadable,
    addresses_in,
    format_error,
    local_answer,
    make_query,
    parse_question,
    refusal,
    servfail,
)
from client.dns.config import Config, Upstreams
from client.dns.doh import DohClient
from client.dns.sockets import OpenSocket, open_here
from client.dns.upstream import Forwarder, NoAnswer

logger = logging.getLogger("trenzad.dns")

MAX_QUERIES = 128  # in flight at once, of everybody together
# What a peer may ask an exit node: what programs ask, nothing that moves zones. Source: tailscale peerapi.go.
PEER_TYPES = frozenset(
    {"A", "AAAA", "CAA", "CNAME", "HINFO", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """``source`` says to people who gave it; ``question`` is ``None`` for rubbish."""

    wire: bytes
    question: Question | None
    source: str


class Resolver:
    """Set :attr:`config` whenever it changes; queries under way end under the one they began with.

    ``open_socket`` is how others are asked.
    """

    def __init__(self, forwarder: Forwarder | None = None, *, open_socket: OpenSocket = open_here) -> None:
        self.config = Config()
        doh = DohClient(lookup=self._lookup, open_socket=open_socket)
        self._forwarder = forwarder or Forwarder(doh, open_socket)
        self._open = 0

    async def close(self) -> None:
        await self._forwarder.close()

    async def answer(self, wire: bytes) -> Answer | None:
        """The answer to a query of this host; ``None`` for what deserves none."""
        try:
            question = parse_question(wire)
        except Unreadable:
            refused = format_error(wire)
            return None if refused is None else Answer(refused, None, "here")
        if (known := local_answer(question, self.config)) is not None:
            return Answer(known, question, "here")
        return await self._forward(question, self.config.upstreams(question.name or "") or ())

    async def answer_peer(self, wire: bytes) -> bytes | None:
        """The answer to a peer that uses this exit node: the world's names, nothing of this host's networks.

        ``None`` for what is no query. Who may ask is the caller's business.
        """
        try:
            question = parse_question(wire)
        except Unreadable:
            return format_error(wire)
        config = self.config
        inside = local_answer(question, config) is not None
        if inside or question.type not in PEER_TYPES:
            return refusal(question, dns.rcode.REFUSED)
        return (await self._forward(question, config.everywhere)).wire

    async def _forward(self, question: Question, upstreams: Upstreams) -> Answer:
        if self._open >= MAX_QUERIES:
            return Answer(servfail(question), question, "here: too many queries at once")
        self._open += 1
        try:
            wire = await self._forwarder.ask(question.wire, upstreams)
        except NoAnswer as error:
            logger.debug("%s %s: %s", question.name, question.type, error)
            return Answer(servfail(question), question, str(error))
        finally:
            self._open -= 1
        return Answer(wire, question, ", ".join(map(str, upstreams)))

    async def _lookup(self, host: str) -> list[str]:
        """The addresses of a DoH server, from the host's own resolvers."""
        if self.config.hidden:
            return []
        try:
            return addresses_in(await self._forwarder.ask(make_query(host, "A"), self.config.base))
        except (NoAnswer, ValueError):
            return []
