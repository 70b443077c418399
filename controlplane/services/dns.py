"""A tailnet's DNS settings: checked, written in one transaction, audited, and sent to every device.

Shapes are those of :class:`controlplane.models.DNSSettings`. Each change reads the locked row and alters one
thing of it, so two people who edit at once lose nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from accounts.access import require_right
from accounts.actors import Actor
from accounts.changes import write
from accounts.errors import Conflict, Invalid
from accounts.models import Tailnet
from accounts.roles import Capability
from accounts.services import audit
from controlplane.env import environment
from controlplane.models import DNSSettings
from nodes.models import Node

MAX_NAMESERVERS = 8  # of all names, and of each domain
MAX_DOMAINS = 200
MAX_SEARCH_DOMAINS = 32
MAX_RECORDS = 1000
MAX_URL = 512
MAX_NAME = 253
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")  # records of services begin with _
NOT_IN_URLS = re.compile(r"[\s\"<>\\^`{|}]")
SERVICE_ADDRESSES = frozenset({"100.100.100.100", "fd7a:115c:a1e0::53"})
PORT = 53


# --- reading ---------------------------------------------------------------------------------------------


def dns_settings(tailnet: Tailnet) -> DNSSettings:
    """The settings, or what holds while nobody has set anything (not saved)."""
    return DNSSettings.objects.filter(tailnet=tailnet).first() or DNSSettings(tailnet=tailnet)


def suffix_of(tailnet: Tailnet) -> str:
    """The MagicDNS domain of a tailnet."""
    return f"{tailnet.name}.{environment().base_domain}"


# --- what may be written ---------------------------------------------------------------------------------


def nameserver_address(text: str) -> str:
    """An address in its one form, one that means the same to every device; raises :class:`Invalid`."""
    text = text.strip()
    if "://" in text:
        return _doh_url(text)
    host, port = _host_and_port(text)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise Invalid(
            f"{text[:80]!r} is no nameserver: give an address such as 1.1.1.1 or 2606:4700:4700::1111, "
            "with a port behind it if it is not 53, or an address that begins with https://"
        ) from None
    if str(address) in SERVICE_ADDRESSES:
        raise Invalid(f"{address} is each device's own resolver, which would ask itself: give another one")
    if address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local:
        raise Invalid(f"{address} is not the same host for every device: give an address that all can reach")
    if port == PORT:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _host_and_port(text: str) -> tuple[str, int]:
    host, number = text, str(PORT)
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        number = rest.removeprefix(":") or number if closed else ""
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
    if not (number.isascii() and number.isdecimal()) or not 0 < int(number[:6]) <= 65535:
        raise Invalid(f"{text[:80]!r} has no port from 1 to 65535 behind its colon")
    return ("" if "%" in host else host), int(number)


def _doh_url(text: str) -> str:
    wrong = Invalid(
        f"{text[:80]!r} is no DNS over HTTPS address: it looks like https://dns.example.com/dns-query"
    )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if not text.isascii() or not text.isprintable() or NOT_IN_URLS.search(text) or len(text) > MAX_URL:
        raise wrong
    if parts.scheme != "https" or not host or port == 0 or parts.username is not None or parts.fragment:
        raise wrong
    return text


def domain_name(text: str) -> str:
    """A domain in its one form: lower case, no dot at either end; raises :class:`Invalid`."""
    name = text.strip().strip(".").lower()
    labels = name.split(".")
    if not name or len(name) > MAX_NAME or not all(LABEL.fullmatch(label) for label in labels):
        raise Invalid(f"{text[:80]!r} is no domain: write it like corp.example.com")
    return name


def record_value(text: str) -> str:
    """An address that a name shall have; raises :class:`Invalid`."""
    try:
        return str(ipaddress.ip_address("" if "%" in text else text.strip()))
    except ValueError:
        raise Invalid(f"{text[:80]!r} is no address: write it like 100.64.0.7 or fd7a:115c:a1e0::7") from None


# --- changes ---------------------------------------------------------------------------------------------


@contextmanager
def _changing(tailnet: Tailnet, by: Actor, subject: str, details: str = "") -> Iterator[DNSSettings]:
    """The locked settings to be altered; what has changed is saved, published and audited."""
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_NETWORK)
        row, _ = DNSSettings.objects.get_or_create(tailnet=change.tailnet)
        before = _content(row)
        yield row
        after = _content(row)
        names = [name for name in after if after[name] != before[name]]
        if not names:
            return
        row.save(update_fields=names)
        change.upsert("dnssettings", row.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="UPDATE",
            target_type="TAILNET",
            target_id=change.tailnet.pk,
            target_name=change.tailnet.name,
            target_property=subject,
            old={name: before[name] for name in names},
            new={name: after[name] for name in names},
            details=details,
        )


def _content(row: DNSSettings) -> dict[str, Any]:
    """A copy of everything that can be set."""
    return {
        "magic_dns": row.magic_dns,
        "override_local_dns": row.override_local_dns,
        "nameservers": [dict(item) for item in row.nameservers],
        "split_dns": {domain: [dict(item) for item in items] for domain, items in row.split_dns.items()},
        "search_paths": list(row.search_paths),
        "extra_records": [dict(item) for item in row.extra_records],
    }


def set_magic_dns(*, tailnet: Tailnet, by: Actor, on: bool) -> None:
    """Whether devices find one another by name."""
    with _changing(tailnet, by, "MAGIC_DNS") as row:
        row.magic_dns = on


def set_override(*, tailnet: Tailnet, by: Actor, on: bool) -> None:
    """Whether devices ask the tailnet's nameservers for everything, in place of their networks'."""
    with _changing(tailnet, by, "DNS_OVERRIDE") as row:
        _set_override(row, on)


def _set_override(row: DNSSettings, on: bool) -> None:
    if on and not row.nameservers:
        raise Conflict("there is no nameserver for all names yet: add one first")
    row.override_local_dns = on


def add_nameserver(
    *, tailnet: Tailnet, by: Actor, address: str, domain: str = "", use_with_exit_node: bool = False
) -> None:
    """A nameserver for all names, or for those in ``domain`` alone; a known one takes the new option."""
    address = nameserver_address(address)
    domain = _split_domain(tailnet, domain) if domain.strip() else ""
    with _changing(tailnet, by, "SPLIT_DNS" if domain else "DNS_NAMESERVERS", domain or address) as row:
        split = dict(row.split_dns)
        old = split.get(domain, []) if domain else row.nameservers
        new = [item for item in old if item["address"] != address]
        place = next((index for index, one in enumerate(old) if one["address"] == address), len(new))
        new.insert(place, _nameserver(address, use_with_exit_node))
        _check_nameservers(new)
        if domain:
            split[domain] = new
            _check_domains(split)
            row.split_dns = split
        else:
            row.nameservers = new


def _nameserver(address: str, use_with_exit_node: bool) -> dict[str, Any]:
    return {"address": address} | ({"useWithExitNode": True} if use_with_exit_node else {})


def _split_domain(tailnet: Tailnet, text: str) -> str:
    domain, own = domain_name(text), suffix_of(tailnet)
    if domain == own or domain.endswith(f".{own}"):
        raise Invalid(f"{own} is the tailnet's own domain, which devices answer themselves")
    return domain


def _check_nameservers(new: Sequence[Any]) -> None:
    if len(new) > MAX_NAMESERVERS:
        raise Invalid(f"there can be at most {MAX_NAMESERVERS} nameservers: remove one first")


def _check_domains(split: Mapping[str, Any]) -> None:
    if len(split) > MAX_DOMAINS:
        raise Invalid(f"there can be at most {MAX_DOMAINS} domains with nameservers: remove one first")


def remove_nameserver(*, tailnet: Tailnet, by: Actor, address: str, domain: str = "") -> None:
    """Without the last one for all names, devices ask their networks' again."""
    with _changing(tailnet, by, "SPLIT_DNS" if domain else "DNS_NAMESERVERS", domain or address) as row:
        if domain:
            split = dict(row.split_dns)
            left = [item for item in split.pop(domain, []) if item["address"] != address]
            row.split_dns = split | ({domain: left} if left else {})
            return
        row.nameservers = [item for item in row.nameservers if item["address"] != address]
        row.override_local_dns = row.override_local_dns and bool(row.nameservers)


def add_search_domain(*, tailnet: Tailnet, by: Actor, domain: str) -> None:
    """A domain that devices try behind short names, after the tailnet's own."""
    domain = _search_domain(tailnet, domain)
    with _changing(tailnet, by, "DNS_SEARCH_PATHS", domain) as row:
        if domain not in row.search_paths:
            row.search_paths = [*row.search_paths, domain]
        _check_search_domains(row.search_paths)


def _search_domain(tailnet: Tailnet, text: str) -> str:
    domain = domain_name(text)
    if domain == suffix_of(tailnet):
        raise Invalid(f"{domain} is searched already, before all others")
    return domain


def _check_search_domains(domains: Sequence[str]) -> None:
    if len(domains) > MAX_SEARCH_DOMAINS:
        raise Invalid(f"there can be at most {MAX_SEARCH_DOMAINS} search domains: remove one first")


def remove_search_domain(*, tailnet: Tailnet, by: Actor, domain: str) -> None:
    with _changing(tailnet, by, "DNS_SEARCH_PATHS", domain) as row:
        row.search_paths = [one for one in row.search_paths if one != domain]


def add_record(*, tailnet: Tailnet, by: Actor, name: str, value: str) -> None:
    """A name of one's own for an address. One without a dot lies in the tailnet's domain."""
    name, value = domain_name(name), record_value(value)
    full = name if "." in name else f"{name}.{suffix_of(tailnet)}"
    kind = "AAAA" if ":" in value else "A"
    with _changing(tailnet, by, "DNS_RECORDS", f"{full} {value}") as row:
        label, _, parent = full.partition(".")
        if parent == suffix_of(tailnet) and Node.objects.filter(name=label).exists():
            raise Conflict(f"{full} is the name of a device: choose another one")
        record = {"Name": full, "Type": kind, "Value": value}
        if record not in row.extra_records:
            row.extra_records = [*row.extra_records, record]
        if len(row.extra_records) > MAX_RECORDS:
            raise Invalid(f"there can be at most {MAX_RECORDS} records: remove one first")


def remove_record(*, tailnet: Tailnet, by: Actor, name: str, value: str) -> None:
    with _changing(tailnet, by, "DNS_RECORDS", f"{name} {value}") as row:
        row.extra_records = [one for one in row.extra_records if (one["Name"], one["Value"]) != (name, value)]


# --- whole settings, as programs write them ----------------------------------------------------------------


def replace_nameservers(*, tailnet: Tailnet, by: Actor, addresses: Iterable[str]) -> None:
    """Exactly these for all names; one that stays keeps its option. Without any, the override ends."""
    with _changing(tailnet, by, "DNS_NAMESERVERS") as row:
        row.nameservers = _with_options(addresses, row.nameservers)
        row.override_local_dns = row.override_local_dns and bool(row.nameservers)


def replace_search_domains(*, tailnet: Tailnet, by: Actor, domains: Iterable[str]) -> None:
    """Exactly these search domains, in this order."""
    wanted = list(dict.fromkeys(_search_domain(tailnet, domain) for domain in domains))
    _check_search_domains(wanted)
    with _changing(tailnet, by, "DNS_SEARCH_PATHS") as row:
        row.search_paths = wanted


def replace_split_dns(
    *, tailnet: Tailnet, by: Actor, domains: Mapping[str, Iterable[str] | None], others_stay: bool = False
) -> None:
    """Exactly these domains with their nameservers, or these beside the others; one that has none goes."""
    wanted = {_split_domain(tailnet, domain): addresses or () for domain, addresses in domains.items()}
    with _changing(tailnet, by, "SPLIT_DNS") as row:
        old = row.split_dns
        new = {domain: _with_options(addresses, old.get(domain, [])) for domain, addresses in wanted.items()}
        row.split_dns = _without_empty((old | new) if others_stay else new)


def replace_dns(
    *,
    tailnet: Tailnet,
    by: Actor,
    magic_dns: bool,
    override_local_dns: bool,
    nameservers: Iterable[Mapping[str, Any]],
    split_dns: Mapping[str, Iterable[Mapping[str, Any]] | None],
    search_domains: Iterable[str],
) -> None:
    """All settings but the records, at once. Nameservers have the shape of :class:`DNSSettings`."""
    searched = list(dict.fromkeys(_search_domain(tailnet, domain) for domain in search_domains))
    _check_search_domains(searched)
    everywhere = _nameservers(nameservers)
    split = {_split_domain(tailnet, domain): _nameservers(items or ()) for domain, items in split_dns.items()}
    with _changing(tailnet, by, "DNS") as row:
        row.magic_dns, row.nameservers, row.search_paths = magic_dns, everywhere, searched
        row.split_dns = _without_empty(split)
        _set_override(row, override_local_dns)


def _with_options(addresses: Iterable[str], old: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nameservers of these addresses, as those among ``old`` are."""
    known = {item["address"]: item for item in old}
    wanted = dict.fromkeys(map(nameserver_address, addresses))
    _check_nameservers(list(wanted))
    return [known.get(address, {"address": address}) for address in wanted]


def _nameservers(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Nameservers as they are stored, each address once."""
    wanted = {nameserver_address(item["address"]): bool(item.get("useWithExitNode")) for item in items}
    _check_nameservers(list(wanted))
    return [_nameserver(address, on) for address, on in wanted.items()]


def _without_empty(split: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    left = {domain: items for domain, items in split.items() if items}
    _check_domains(left)
    return left


def follow_rename(*, tailnet: Tailnet, old: str) -> None:
    """After a tailnet's renaming: records in its domain, once ``old``, lie in its new one."""
    new = suffix_of(tailnet)
    with _changing(tailnet, Actor.system(), "DNS_RECORDS", f"{old} is {new} now") as row:
        row.extra_records = [
            record | {"Name": record["Name"].removesuffix(old) + new}
            if record["Name"].endswith(f".{old}")
            else record
            for record in row.extra_records
        ]
