"""The DERP map: which relays there are, by region. Source: tailscale tailcfg/derpmap.go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wire.errors import MessageError
from wire.fields import boolean, decimal, integer, lower_names, mapping, number, string

DEFAULT_DERP_PORT = 443
DEFAULT_STUN_PORT = 3478
MAX_REGION_ID = 65535
PIN_PREFIX = "sha256-raw:"
NO_ADDRESS = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class DERPNode:
    """One relay host. ``ipv4``/``ipv6``: "" = by DNS, "none" = off. ``stun_port`` 0 = 3478, -1 = off."""

    name: str
    region_id: int
    host_name: str
    cert_name: str = ""
    ipv4: str = ""
    ipv6: str = ""
    stun_port: int = 0
    stun_only: bool = False
    derp_port: int = 0
    insecure_for_tests: bool = False
    can_port80: bool = False

    @property
    def effective_derp_port(self) -> int:
        return self.derp_port or DEFAULT_DERP_PORT

    @property
    def effective_stun_port(self) -> int | None:
        """``None`` when STUN is off here."""
        return None if self.stun_port < 0 else self.stun_port or DEFAULT_STUN_PORT

    @property
    def pinned_sha256(self) -> str | None:
        """The hex SHA-256 of the one certificate this relay may show; ``None`` = ordinary verification."""
        return self.cert_name.removeprefix(PIN_PREFIX) if self.cert_name.startswith(PIN_PREFIX) else None

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"Name": self.name, "RegionID": self.region_id, "HostName": self.host_name}
        optional = {
            "CertName": self.cert_name,
            "IPv4": self.ipv4,
            "IPv6": self.ipv6,
            "STUNPort": self.stun_port,
            "STUNOnly": self.stun_only,
            "DERPPort": self.derp_port,
            "InsecureForTests": self.insecure_for_tests,
            "CanPort80": self.can_port80,
        }
        return content | {name: value for name, value in optional.items() if value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DERPNode:
        f = lower_names(content)
        return cls(
            name=string(f, "name"),
            region_id=integer(f, "regionid"),
            host_name=string(f, "hostname"),
            cert_name=string(f, "certname"),
            ipv4=string(f, "ipv4"),
            ipv6=string(f, "ipv6"),
            stun_port=integer(f, "stunport"),
            stun_only=boolean(f, "stunonly"),
            derp_port=integer(f, "derpport"),
            insecure_for_tests=boolean(f, "insecurefortests"),
            can_port80=boolean(f, "canport80"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DERPRegion:
    """A group of relays near each other; nodes are tried in order."""

    region_id: int
    region_code: str
    region_name: str
    nodes: tuple[DERPNode, ...] = ()
    latitude: float = 0.0
    longitude: float = 0.0
    no_measure_no_home: bool = False

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "RegionID": self.region_id,
            "RegionCode": self.region_code,
            "RegionName": self.region_name,
        }
        optional = {
            "Latitude": self.latitude,
            "Longitude": self.longitude,
            "NoMeasureNoHome": self.no_measure_no_home,
        }
        content |= {name: value for name, value in optional.items() if value}
        return content | {"Nodes": [node.to_json() for node in self.nodes]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DERPRegion:
        f = lower_names(content)
        nodes = f.get("nodes") or []
        if not isinstance(nodes, list):
            raise MessageError("a DERP region's Nodes is not a list")
        return cls(
            region_id=integer(f, "regionid"),
            region_code=string(f, "regioncode"),
            region_name=string(f, "regionname"),
            nodes=tuple(DERPNode.from_json(node) for node in nodes),
            latitude=number(f, "latitude"),
            longitude=number(f, "longitude"),
            no_measure_no_home=boolean(f, "nomeasurenohome") or boolean(f, "avoid"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DERPMap:
    """Every relay region, by id."""

    regions: Mapping[int, DERPRegion] = field(default_factory=dict)
    omit_default_regions: bool = True
    region_scores: Mapping[int, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"omitDefaultRegions": self.omit_default_regions}
        if self.region_scores:
            scores = {str(region): score for region, score in sorted(self.region_scores.items())}
            content["HomeParams"] = {"RegionScore": scores}
        content["Regions"] = {str(region): self.regions[region].to_json() for region in sorted(self.regions)}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DERPMap:
        """Raises :class:`MessageError` for regions that are no regions; null regions are left out."""
        f = lower_names(content)
        regions = mapping(f, "regions")
        scores = mapping(lower_names(f.get("homeparams") or {}), "regionscore")
        return cls(
            regions={_region_id(key): DERPRegion.from_json(value) for key, value in regions.items() if value},
            omit_default_regions=boolean(f, "omitdefaultregions"),
            region_scores={_region_id(key): number(scores, key) for key in scores},
        )


def _region_id(text: str) -> int:
    region = decimal(text, "a DERP region id")
    if not 0 < region <= MAX_REGION_ID:
        raise MessageError(f"{region} is not a DERP region id")
    return region
