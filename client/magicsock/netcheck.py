"""What the network around this node is like, from STUN answers and latencies. Pure: time is an argument.

Source: tailscale net/netcheck/netcheck.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from wire.control import NetInfo
from wire.derpmap import DERPMap, DERPNode

Address = tuple[str, int]

MAX_NODES_A_REGION = 3
MAX_REGIONS = 20  # measured in a full netcheck
QUICK_REGIONS = 3  # in one between full ones: the home and the nearest
REMEMBERED = 305.0  # seconds for which an old report counts when the home relay is chosen
MIN_GAIN = 0.010  # seconds by which another region must be nearer than the home …
MAX_SHARE = 2 / 3  # … and at most this share of the home's latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One netcheck. Latencies are seconds by region id; ``None`` = not known.

    ``global_v4``/``global_v6``: how servers saw this node, the surest first. ``upnp``, ``pmp``, ``pcp``: what
    the router offers to forward ports by; ``mapped``: where it forwards to us. ``captive_portal``: somebody
    answers in the servers' place until a person has signed in to this network.
    """

    udp: bool = False
    ipv4: bool = False
    ipv6: bool = False
    os_has_ipv6: bool = False
    global_v4: tuple[Address, ...] = ()
    global_v6: tuple[Address, ...] = ()
    mapping_varies_by_dest_ip: bool | None = None
    upnp: bool | None = None
    pmp: bool | None = None
    pcp: bool | None = None
    mapped: Address | None = None
    captive_portal: bool | None = None
    region_latency: Mapping[int, float] = field(default_factory=dict)
    region_v4_latency: Mapping[int, float] = field(default_factory=dict)
    region_v6_latency: Mapping[int, float] = field(default_factory=dict)
    preferred_derp: int = 0

    @property
    def is_hard(self) -> bool:
        """Behind a NAT that strangers do not get through, and that forwards nothing."""
        return self.mapping_varies_by_dest_ip is True and self.mapped is None

    def net_info(self) -> NetInfo:
        """The same in the words of Hostinfo.NetInfo."""
        latency = {f"{region}-v4": value for region, value in self.region_v4_latency.items()}
        latency |= {f"{region}-v6": value for region, value in self.region_v6_latency.items()}
        if not latency:  # without UDP the relays were measured over TCP, whichever family it took
            latency = {f"{region}-v4": value for region, value in self.region_latency.items()}
        return NetInfo(
            preferred_derp=self.preferred_derp,
            derp_latency=latency,
            working_udp=self.udp,
            working_ipv6=self.ipv6,
            os_has_ipv6=self.os_has_ipv6,
            mapping_varies_by_dest_ip=self.mapping_varies_by_dest_ip,
            have_port_map=self.mapped is not None,
            upnp=self.upnp,
            pmp=self.pmp,
            pcp=self.pcp,
        )


def same_network(old: NetInfo, new: NetInfo) -> bool:
    """Whether two reports tell the server the same; latencies alone are no news."""
    return replace(old, derp_latency={}) == replace(new, derp_latency={})


def nodes_to_measure(derp_map: DERPMap, last: Report | None, *, home: int, full: bool) -> list[DERPNode]:
    """The relays to ask: all of every region (within bounds), or the home's and the nearest regions'."""
    regions = [region for region in derp_map.regions.values() if not region.no_measure_no_home]
    if last is not None:
        far = float("inf")
        regions.sort(key=lambda r: (r.region_id != home, last.region_latency.get(r.region_id, far)))
    count = MAX_REGIONS if full or last is None else QUICK_REGIONS
    return [node for region in regions[:count] for node in region.nodes[:MAX_NODES_A_REGION]]


def second_port(node: DERPNode) -> int | None:
    """Another port at which Trenza's relay answers STUN as well: DERP's number.

    With one relay only, the answers of both tell whether the NAT gives each destination another port.
    """
    port = node.effective_derp_port
    return port if node.effective_stun_port not in (None, port) and 0 < port < 65_536 else None


def _keep_least(latencies: dict[int, float], region: int, latency: float) -> None:
    latencies[region] = min(latency, latencies.get(region, latency))


@dataclass(frozen=True, slots=True)
class _Probe:
    region: int
    server: Address
    sent_at: float
    may_be_silent: bool


class Measurement:
    """One netcheck under way: what was asked, what came back."""

    def __init__(self, *, os_has_ipv6: bool) -> None:
        self.os_has_ipv6 = os_has_ipv6
        self._open: dict[bytes, _Probe] = {}
        self._silent: set[Address] = set()
        self._seen: dict[Address, Address] = {}  # server → how it saw us; the nearest answer first
        self._second: dict[Address, Address] = {}  # what second ports say, for comparison only
        self._latency: dict[int, float] = {}
        self._v4_latency: dict[int, float] = {}
        self._v6_latency: dict[int, float] = {}

    @property
    def complete(self) -> bool:
        """Every server that was asked has answered."""
        return not self._silent

    @property
    def any_answer(self) -> bool:
        return bool(self._seen)

    def is_silent(self, server: Address) -> bool:
        return server in self._silent

    def sent(
        self, txid: bytes, region: int, server: Address, now: float, *, may_be_silent: bool = False
    ) -> None:
        """A STUN request left; a server may be asked again. One that ``may_be_silent`` is not waited for."""
        self._open[txid] = _Probe(region, server, now, may_be_silent)
        if server not in self._seen and not may_be_silent:
            self._silent.add(server)

    def answered(self, txid: bytes, seen: Address, now: float) -> bool:
        """A STUN answer came; ``False`` when it is not one to this measurement."""
        probe = self._open.pop(txid, None)
        if probe is None:
            return False
        self._silent.discard(probe.server)
        if probe.may_be_silent:
            self._second.setdefault(probe.server, seen)
            return True
        self._seen.setdefault(probe.server, seen)
        by_family = self._v6_latency if ":" in seen[0] else self._v4_latency
        for latencies in (self._latency, by_family):
            _keep_least(latencies, probe.region, now - probe.sent_at)
        return True

    def measured(self, region: int, latency: float) -> None:
        """A relay's latency found another way, without UDP."""
        _keep_least(self._latency, region, latency)

    def report(self) -> Report:
        """What is known so far; the home is not chosen here."""
        v4 = [seen for seen in self._seen.values() if ":" not in seen[0]]
        v6 = [seen for seen in self._seen.values() if ":" in seen[0]]
        compared = v4 + list(self._second.values())
        return Report(
            udp=bool(self._seen),
            ipv4=bool(v4),
            ipv6=bool(v6),
            os_has_ipv6=self.os_has_ipv6,
            global_v4=_surest(v4),
            global_v6=_surest(v6),
            mapping_varies_by_dest_ip=len(set(compared)) > 1 if len(compared) > 1 else None,
            region_latency=dict(self._latency),
            region_v4_latency=dict(self._v4_latency),
            region_v6_latency=dict(self._v6_latency),
        )


def _surest(seen: Iterable[Address]) -> tuple[Address, ...]:
    """The first address, and others that more than one server saw: single ones are a hard NAT's."""
    counts: dict[Address, int] = {}
    for address in seen:
        counts[address] = counts.get(address, 0) + 1
    return tuple(address for index, (address, count) in enumerate(counts.items()) if index == 0 or count > 1)


def hosts_of(seen: Iterable[Address]) -> list[str]:
    """The addresses without their ports, the first one only: it is the surest."""
    return [host for host, _ in tuple(seen)[:1]]


def remembering(report: Report, last: Report | None) -> Report:
    """What ``report`` could not find out but ``last`` had, in the same place (behind the same address)."""
    if last is None or report.mapping_varies_by_dest_ip is not None or not report.global_v4:
        return report
    if hosts_of(report.global_v4) != hosts_of(last.global_v4):
        return report
    return replace(report, mapping_varies_by_dest_ip=last.mapping_varies_by_dest_ip)


class Homes:
    """Chooses the home relay from the reports of the last minutes; it does not wander for a small gain."""

    def __init__(self) -> None:
        self._reports: list[tuple[float, Report]] = []

    @property
    def last(self) -> Report | None:
        return self._reports[-1][1] if self._reports else None

    def choose(
        self,
        report: Report,
        derp_map: DERPMap,
        now: float,
        *,
        current: int,
        alive: bool,
        stay: bool,
        dead: bool = False,
    ) -> Report:
        """``report`` with its home. ``alive``: the ``current`` one answers; ``dead``: it has not for long.

        ``stay``: do not move.
        """
        self._reports = [(at, old) for at, old in self._reports if now - at <= REMEMBERED]
        self._reports.append((now, report))
        current = current if current in derp_map.regions else 0
        latencies = {r: v for r, v in report.region_latency.items() if not (dead and r == current)}
        region = current if current and stay else self._region(latencies, derp_map, current, alive=alive)
        self._reports[-1] = (now, replace(report, preferred_derp=region))
        return self._reports[-1][1]

    def _region(self, latencies: Mapping[int, float], derp_map: DERPMap, current: int, *, alive: bool) -> int:
        scores = derp_map.region_scores
        here = {r: value * scores.get(r, 1.0) for r, value in latencies.items()}
        best = {r: self._best(r) * scores.get(r, 1.0) for r in here if r in derp_map.regions}
        if not best:
            return current or _any_home(derp_map)
        nearest = min(best, key=lambda region: (best[region], region))
        if current in (0, nearest):
            return nearest
        if current not in here:
            return current if alive else nearest
        gain, share = here[current] - best[nearest], best[nearest] / (here[current] or 1e-9)
        return nearest if gain >= MIN_GAIN and share <= MAX_SHARE else current

    def _best(self, region: int) -> float:
        return min(old.region_latency[region] for _, old in self._reports if region in old.region_latency)


def _able(derp_map: DERPMap) -> list[int]:
    """The regions that may be a home."""
    return [region.region_id for region in derp_map.regions.values() if not region.no_measure_no_home]


def _any_home(derp_map: DERPMap) -> int:
    """Nothing could be measured: any region is better than none."""
    return min(_able(derp_map), default=0)


def sole_home(derp_map: DERPMap) -> int:
    """The only region that there is to choose, else 0."""
    able = _able(derp_map)
    return able[0] if len(able) == 1 else 0
