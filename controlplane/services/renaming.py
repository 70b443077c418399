"""A tailnet's name, and what bears it."""

from __future__ import annotations

from accounts.actors import Actor
from accounts.changes import write
from accounts.models import Tailnet
from accounts.services import tailnets
from controlplane.services import dns


def rename_tailnet(*, tailnet: Tailnet, name: str, by: Actor) -> Tailnet:
    """Give a tailnet another name: its devices' domain, and its own DNS records, change in one step."""
    with write(tailnet) as change:
        old = dns.suffix_of(change.tailnet)
        renamed = tailnets.rename_tailnet(tailnet=change.tailnet, name=name, by=by)
        dns.follow_rename(tailnet=renamed, old=old)
    return renamed
