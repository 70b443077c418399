"""A tailnet's DNS settings: each by itself, and all at once."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from rest_framework import serializers

from accounts.api.fields import Matching, beyond_the_schema
from accounts.api.values import Closed, Flag, Text, Texts
from accounts.api.views import ApiView, operation
from controlplane.models import DNSSettings
from controlplane.services import dns

LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
DOMAIN = rf"^{LABEL}(\.{LABEL})*\.?$"
PORT = r"(:[1-9][0-9]{0,4})?"
BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"{BYTE}(\.{BYTE}){{3}}"
WORD = "[0-9A-Fa-f]{1,4}"
# All sixteen bytes, or :: in front, behind or between (RFC 4291 section 2.2).
IPV6 = "|".join(
    [
        rf"({WORD}:){{7}}{WORD}",
        rf"({WORD}:){{1,7}}:",
        rf":(:{WORD}){{1,7}}",
        *(rf"({WORD}:){{1,{7 - after}}}(:{WORD}){{1,{after}}}" for after in range(1, 7)),
    ]
)
HTTPS = rf"https://({LABEL}(\.{LABEL})*|\[({IPV6})\]){PORT}([/?][!$-;=?-\[\]_a-z~]*)?"
NAMESERVER = rf"^({IPV4}{PORT}|{IPV6}|\[({IPV6})\]{PORT}|{HTTPS})$"


class Address(Matching):
    """A nameserver's address."""

    def __init__(self, **options: Any) -> None:
        wanted = {"max_length": dns.MAX_URL, "help_text": "An address, with a port if need be, or https://…"}
        super().__init__(NAMESERVER, "9.9.9.9, 2620:fe::fe or https://dns.example.com/dns-query", **wanted)


class Addresses(Texts):
    """The addresses of nameservers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"child": Address(), "max_length": dns.MAX_NAMESERVERS} | options))


class Domains(Texts):
    """Domains to search."""

    def __init__(self, **options: Any) -> None:
        child = Matching(DOMAIN, "corp.example.com", max_length=dns.MAX_NAME)
        super().__init__(**({"child": child, "max_length": dns.MAX_SEARCH_DOMAINS} | options))


# --- the shapes ------------------------------------------------------------------------------------------


class DnsNameservers(Closed):
    """The nameservers for all names."""

    dns = Texts(allow_null=False)
    magicDNS = Flag(required=False, help_text="Whether devices find one another by name.")


class DnsNameserversRequest(Closed):
    """The nameservers that there shall be for all names."""

    dns = Addresses()


class DnsPreferences(Closed):
    """Whether devices find one another by name."""

    magicDNS = Flag()


class DnsSearchPaths(Closed):
    """The domains that devices try behind short names, after the tailnet's own."""

    searchPaths = Texts(allow_null=False)


class DnsSearchPathsRequest(Closed):
    """The search domains that there shall be."""

    searchPaths = Domains()


class DnsResolver(Closed):
    """A nameserver."""

    address = Text()
    useWithExitNode = Flag(help_text="Whether it is asked while an exit node is in use, too.")


class DnsResolverRequest(Closed):
    """A nameserver that there shall be."""

    address = Address()
    useWithExitNode = Flag(required=False, help_text="Whether it is asked while an exit node is in use, too.")


class DnsSwitches(Closed):
    """What is on."""

    magicDNS = Flag(help_text="Whether devices find one another by name.")
    overrideLocalDNS = Flag(help_text="Whether devices ask these nameservers in place of their networks'.")


class DnsSwitchesRequest(Closed):
    """What shall be on."""

    magicDNS = Flag(required=False, help_text="Whether devices find one another by name.")
    overrideLocalDNS = Flag(
        required=False, help_text="Whether devices ask these nameservers in place of their networks'."
    )


class DnsConfiguration(Closed):
    """All DNS settings."""

    nameservers = serializers.ListField(child=DnsResolver(), help_text="For all names.")
    splitDNS = serializers.DictField(
        child=serializers.ListField(child=DnsResolver()), help_text="By domain, those for its names alone."
    )
    searchPaths = Texts(allow_null=False, help_text="Domains that devices try behind short names.")
    preferences = DnsSwitches()


class Resolvers(serializers.ListField):
    """Nameservers; ``null`` is none, as Go writes it."""

    child = DnsResolverRequest()

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"max_length": dns.MAX_NAMESERVERS, "allow_null": True} | options))


class DnsConfigurationRequest(Closed):
    """All DNS settings that there shall be. What is left out is empty or off."""

    nameservers = Resolvers(required=False, help_text="For all names.")
    splitDNS = serializers.DictField(
        child=Resolvers(), required=False, allow_null=True, help_text="By domain, those for its names alone."
    )
    searchPaths = Domains(required=False, help_text="Domains that devices try behind short names.")
    preferences = DnsSwitchesRequest(required=False, allow_null=True)


class SplitDns(serializers.BaseSerializer[Any]):
    """By domain, the addresses of the nameservers for its names alone."""

    domains = serializers.DictField(child=Texts(allow_null=False))

    def to_internal_value(self, data: Any) -> Any:
        return self.domains.run_validation(data)


class SplitDnsRequest(SplitDns):
    """By domain, the addresses of the nameservers that there shall be for its names alone."""

    domains = serializers.DictField(child=Addresses())


class SplitDnsSchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """How the description says it: an object whose members are named by people."""

    target_class, match_subclasses = SplitDns, True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        mapped = auto_schema._map_serializer_field(self.target.domains, direction)
        return mapped | {"description": self.target.__doc__}


# --- what there is ---------------------------------------------------------------------------------------


def _addresses(resolvers: list[dict[str, Any]]) -> list[str]:
    return [one["address"] for one in resolvers]


def _resolvers(resolvers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"address": one["address"], "useWithExitNode": "useWithExitNode" in one} for one in resolvers]


def describe_split_dns(row: DNSSettings) -> dict[str, list[str]]:
    """An API v2 SplitDns."""
    return {domain: _addresses(resolvers) for domain, resolvers in row.split_dns.items()}


def describe_configuration(row: DNSSettings) -> dict[str, Any]:
    """An API v2 DnsConfiguration."""
    return {
        "nameservers": _resolvers(row.nameservers),
        "splitDNS": {domain: _resolvers(resolvers) for domain, resolvers in row.split_dns.items()},
        "searchPaths": row.search_paths,
        "preferences": {"magicDNS": row.magic_dns, "overrideLocalDNS": row.override_local_dns},
    }


class DnsView(ApiView):
    """What the addresses of DNS have in common."""

    @property
    def row(self) -> DNSSettings:
        """The settings as they are now."""
        return dns.dns_settings(self.caller.tailnet)

    @property
    def mine(self) -> dict[str, Any]:
        """What every service wants to know."""
        return {"tailnet": self.caller.tailnet, "by": self.caller.actor}


# --- the addresses ---------------------------------------------------------------------------------------


class NameserversView(DnsView):
    """``/tailnet/{tailnet}/dns/nameservers``"""

    @operation("listDnsNameservers", about="Get nameservers", scope="dns:read", answer=DnsNameservers)
    def get(self) -> dict[str, Any]:
        """The nameservers for all names."""
        return {"dns": _addresses(self.row.nameservers)}

    @operation(
        "setDnsNameservers",
        about="Set nameservers",
        scope="dns",
        body=DnsNameserversRequest,
        answer=DnsNameservers,
        example={"dns": ["9.9.9.9", "2620:fe::fe"]},
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replaces the nameservers for all names. Without any, devices ask those of their networks."""
        with beyond_the_schema():
            dns.replace_nameservers(**self.mine, addresses=body["dns"] or [])
        row = self.row
        return {"dns": _addresses(row.nameservers), "magicDNS": row.magic_dns}


class PreferencesView(DnsView):
    """``/tailnet/{tailnet}/dns/preferences``"""

    @operation("getDnsPreferences", about="Get DNS preferences", scope="dns:read", answer=DnsPreferences)
    def get(self) -> dict[str, Any]:
        return {"magicDNS": self.row.magic_dns}

    @operation(
        "setDnsPreferences",
        about="Set DNS preferences",
        scope="dns",
        body=DnsPreferences,
        answer=DnsPreferences,
        example={"magicDNS": True},
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        dns.set_magic_dns(**self.mine, on=body["magicDNS"])
        return {"magicDNS": self.row.magic_dns}


class SearchPathsView(DnsView):
    """``/tailnet/{tailnet}/dns/searchpaths``"""

    @operation("listDnsSearchPaths", about="Get search domains", scope="dns:read", answer=DnsSearchPaths)
    def get(self) -> dict[str, Any]:
        return {"searchPaths": self.row.search_paths}

    @operation(
        "setDnsSearchPaths",
        about="Set search domains",
        scope="dns",
        body=DnsSearchPathsRequest,
        answer=DnsSearchPaths,
        example={"searchPaths": ["corp.example.com"]},
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replaces the search domains. The tailnet's own is searched before them and not among them."""
        with beyond_the_schema():
            dns.replace_search_domains(**self.mine, domains=body["searchPaths"] or [])
        return {"searchPaths": self.row.search_paths}


class ConfigurationView(DnsView):
    """``/tailnet/{tailnet}/dns/configuration``"""

    @operation("getDnsConfiguration", about="Get all DNS settings", scope="dns:read", answer=DnsConfiguration)
    def get(self) -> dict[str, Any]:
        return describe_configuration(self.row)

    @operation(
        "setDnsConfiguration",
        about="Set all DNS settings",
        scope="dns",
        body=DnsConfigurationRequest,
        answer=DnsConfiguration,
        example={
            "nameservers": [{"address": "9.9.9.9", "useWithExitNode": True}],
            "splitDNS": {"corp.example.com": [{"address": "10.0.0.53"}]},
            "searchPaths": ["corp.example.com"],
            "preferences": {"magicDNS": True, "overrideLocalDNS": True},
        },
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replaces all of them: what is left out is empty or off afterwards."""
        switches = body.get("preferences") or {}
        with beyond_the_schema():
            dns.replace_dns(
                **self.mine,
                magic_dns=switches.get("magicDNS", False),
                override_local_dns=switches.get("overrideLocalDNS", False),
                nameservers=body.get("nameservers") or [],
                split_dns=body.get("splitDNS") or {},
                search_domains=body.get("searchPaths") or [],
            )
        return describe_configuration(self.row)


class SplitDnsView(DnsView):
    """``/tailnet/{tailnet}/dns/split-dns``"""

    @operation("getSplitDns", about="Get split DNS", scope="dns:read", answer=SplitDns)
    def get(self) -> dict[str, Any]:
        """By domain, the nameservers that are asked for its names alone."""
        return describe_split_dns(self.row)

    @operation(
        "setSplitDns",
        about="Set split DNS",
        scope="dns",
        body=SplitDnsRequest,
        answer=SplitDns,
        example={"corp.example.com": ["10.0.0.53"]},
    )
    def put(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replaces all domains."""
        return self._write(body, others_stay=False)

    @operation(
        "updateSplitDns",
        about="Change split DNS",
        scope="dns",
        body=SplitDnsRequest,
        answer=SplitDns,
        example={"corp.example.com": ["10.0.0.53"], "old.example.com": None},
    )
    def patch(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replaces the nameservers of these domains; one with none or ``null`` is removed."""
        return self._write(body, others_stay=True)

    def _write(self, domains: dict[str, Any], *, others_stay: bool) -> dict[str, Any]:
        with beyond_the_schema():
            dns.replace_split_dns(**self.mine, domains=domains, others_stay=others_stay)
        return describe_split_dns(self.row)
