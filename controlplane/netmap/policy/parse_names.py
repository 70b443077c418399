"""Sections that define names: ``groups``, ``hosts``, ``ipsets``, ``tagOwners``, ``autoApprovers``. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import groupby

from controlplane.netmap.policy.errors import PolicyError, quoted
from controlplane.netmap.policy.hujson import Value
from controlplane.netmap.policy.model import AutoApprovers
from controlplane.netmap.policy.parse_selectors import Names, parse_addresses, parse_owner
from controlplane.netmap.policy.ranges import INTERNET_RANGES, NOTHING, IPSet, Prefix, parse_prefix
from controlplane.netmap.policy.reading import members, named, text, texts
from controlplane.netmap.policy.selectors import INTERNET, Addresses, Selector

TAG_START = re.compile(r"tag:[A-Za-z]")
TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
EXIT_PREFIXES = frozenset({"0.0.0.0/0", "::/0"})
MAX_IPSET_DEPTH = 20  # of IP sets inside IP sets
MAX_IPSET_TURNS = 100  # from adding to removing and back, in one IP set
MAX_IPSET_RANGES = 500_000  # of all IP sets together


def parse_groups(section: Value | None) -> dict[str, tuple[str, ...]]:
    """The logins of each group, in lower case."""
    groups = {}
    for name, (value, offset) in reversed(named(section, "groups").items()):  # the last error is told
        where = f"groups[{quoted(name)}]"
        if not name.startswith("group:") or name == "group:":
            raise PolicyError(f'{where}: group names must start with "group:"', offset)
        groups[name] = tuple(_login(text, place, where) for text, place in texts(value, where))
    return groups


def _login(text: str, offset: int, where: str) -> str:
    if text.startswith("group:"):
        raise PolicyError(f"{where}: {quoted(text)}: group members cannot be recursive", offset)
    if "@" not in text or text.startswith(("user:", "tag:", "autogroup:")):
        raise PolicyError(f"{where}: {quoted(text)}: group members must be users", offset)
    return text.lower()


def check_tag(name: str, offset: int) -> None:
    """Refuse what is no name of a tag."""
    where = f"tagOwners[{quoted(name)}]"
    if not name.startswith("tag:"):
        raise PolicyError(f"{where}: tag names must start with 'tag:'", offset)
    if not TAG_START.match(name):
        raise PolicyError(f"{where}: tag names must start with a letter, after 'tag:'", offset)
    if not TAG.fullmatch(name):
        raise PolicyError(f"{where}: tag names can only contain numbers, letters, or dashes", offset)


def parse_tags(section: Value | None) -> Collection[str]:
    """The names of ``tagOwners``, which are all tags that there are."""
    tags = named(section, "tagOwners")
    for name, (_, offset) in tags.items():
        check_tag(name, offset)
    return tags.keys()


def parse_tag_owners(section: Value | None, names: Names) -> dict[str, tuple[Selector, ...]]:
    """Who may give each tag."""
    return {
        name: _owners(value, f"tagOwners[{quoted(name)}]", names)
        for name, (value, _) in named(section, "tagOwners").items()
    }


def _owners(value: Value | None, where: str, names: Names) -> tuple[Selector, ...]:
    owners = []
    for owner, offset in texts(value, where):
        try:
            owners.append(parse_owner(owner, names, offset))
        except PolicyError as error:
            error.message = f"{where}: {error.message}"
            raise
    return tuple(owners)


def parse_hosts(section: Value | None) -> dict[str, IPSet]:
    """The address or prefix of each host."""
    hosts = {}
    for name, (value, offset) in named(section, "hosts").items():
        where = f"hosts[{quoted(name)}]"
        if not HOST.fullmatch(name):
            raise PolicyError(f"{where}: host names must be letters, numbers, dots and dashes", offset)
        hosts[name] = _host_addresses(value, where)
    return hosts


def _host_addresses(value: Value, where: str) -> IPSet:
    address = text(value, where)
    try:
        return IPSet.of_prefixes((parse_prefix(address),))
    except ValueError:
        raise PolicyError(f"{where}: {quoted(address)}: invalid address", value.start) from None


def parse_ipsets(section: Value | None, hosts: Mapping[str, IPSet]) -> dict[str, Addresses]:
    """Each IP set as the addresses that it comes to."""
    entries = named(section, "ipsets")
    for name, (_, offset) in entries.items():
        if not name.startswith("ipset:") or name == "ipset:":
            raise PolicyError(f'ipsets[{quoted(name)}]: IP set names must start with "ipset:"', offset)
    reader = _IPSets(entries, hosts)
    return {name: reader.resolve(name, offset, ()) for name, (_, offset) in entries.items()}


def _removes(entry: tuple[str, int]) -> bool:
    return entry[0].startswith("remove ")


def _target(entry: str) -> str:
    operation, _, rest = entry.partition(" ")
    return rest.strip() if operation in ("add", "remove") else entry


class _IPSets:
    """IP sets that name one another: each is resolved once, and a circle is refused."""

    def __init__(self, entries: Mapping[str, tuple[Value, int]], hosts: Mapping[str, IPSet]) -> None:
        self.entries, self.hosts = entries, hosts
        self.done: dict[str, Addresses] = {}
        self.left = MAX_IPSET_RANGES

    def resolve(self, name: str, offset: int, within: tuple[str, ...]) -> Addresses:
        if name in self.done:
            return self.done[name]
        if name not in self.entries:
            raise PolicyError(f"ipset not found: {quoted(name)}", offset)
        if name in within or len(within) > MAX_IPSET_DEPTH:
            raise PolicyError(f"ipsets[{quoted(name)}]: IP sets cannot be recursive", offset)
        where = f"ipsets[{quoted(name)}]"
        spans, internet = NOTHING, False
        batches = groupby(texts(self.entries[name][0], where), _removes)
        for turns, (removes, entries) in enumerate(batches, start=1):
            if turns > MAX_IPSET_TURNS:
                raise PolicyError(f"{where}: more than {MAX_IPSET_TURNS} turns of add and remove", offset)
            targets = {_target(entry): place for entry, place in entries}
            parts = [self._part(*target, (*within, name), where) for target in targets.items()]
            batch = IPSet.of(span for part in parts for span in part.spans.spans)
            spans = spans - batch if removes else spans | batch
            internet = internet or (not removes and any(part.internet for part in parts))
        self._spend(len(spans.spans), offset)
        self.done[name] = Addresses(name, offset, spans, internet=internet)
        return self.done[name]

    def _spend(self, ranges: int, offset: int) -> None:
        self.left -= ranges
        if self.left < 0:
            raise PolicyError(f"IP sets hold more than {MAX_IPSET_RANGES} ranges in all", offset)

    def _part(self, text: str, offset: int, within: tuple[str, ...], where: str) -> Addresses:
        if text.startswith("ipset:"):
            return self.resolve(text, offset, within)
        if text == INTERNET:
            return Addresses(text, offset, INTERNET_RANGES, internet=True)
        host = self.hosts.get(text.removeprefix("host:"))
        try:
            return Addresses(text, offset, parse_addresses(text) if host is None else host)
        except ValueError:
            message = f"{where}: {quoted(text)}: an address, prefix, range, host or IP set expected"
            raise PolicyError(message, offset) from None


def parse_auto_approvers(section: Value | None, names: Names) -> AutoApprovers:
    """Who needs no approval for which prefixes, and as an exit node."""
    if section is None:
        return AutoApprovers()
    fields = members(section, ("routes", "exitNode"), "autoApprovers")
    routes = []
    for prefix, (value, offset) in named(fields.get("routes"), "routes").items():
        routes.append((_route(prefix, offset), _owners(value, f"routes[{quoted(prefix)}]", names)))
    return AutoApprovers(tuple(routes), _owners(fields.get("exitNode"), "exitNode", names))


def _route(text: str, offset: int) -> Prefix:
    try:
        return parse_prefix(text)
    except ValueError:
        raise PolicyError(f"routes[{quoted(text)}]: invalid prefix", offset) from None
