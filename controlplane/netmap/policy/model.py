"""A parsed policy file: frozen data, in the order of the file. Offsets point into ``Policy.text``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.netmap.policy.ranges import IPSet, Prefix
from controlplane.netmap.policy.selectors import Addresses, Selector

DEFAULT_PROTOCOLS: tuple[int, ...] = ()  # on the wire: TCP, UDP and both ICMP
ALL_PORTS = (0, 65535)


@dataclass(frozen=True, slots=True)
class Service:
    """Ports of protocols: ``protocols`` are IP protocol numbers, none = TCP, UDP, ICMP and ICMPv6."""

    protocols: tuple[int, ...] = DEFAULT_PROTOCOLS
    ports: tuple[tuple[int, int], ...] = (ALL_PORTS,)


@dataclass(frozen=True, slots=True)
class Target:
    """One destination of a rule with what may be used there; no services for a pure capability grant."""

    selector: Selector
    services: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of ``acls`` or ``grants``: sources, targets, and what the sources get.

    ``app`` maps capabilities to their values (any JSON), ``via`` are the tags of the routers to be used,
    ``postures`` names the postures of which a source has to meet one.
    """

    sources: tuple[Selector, ...]
    targets: tuple[Target, ...]
    app: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    via: tuple[str, ...] = ()
    postures: tuple[str, ...] = ()
    offset: int = 0


@dataclass(frozen=True, slots=True)
class AutoApprovers:
    """Who may advertise what without being asked: subnets (and all within them), and exit nodes."""

    routes: tuple[tuple[Prefix, tuple[Selector, ...]], ...] = ()
    exit_node: tuple[Selector, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessTest:
    """An entry of ``tests``; the texts are parsed when it runs, so that a bad one fails and says so."""

    source: str
    protocol: str
    accept: tuple[str, ...]
    deny: tuple[str, ...]
    posture_attributes: Mapping[str, Any] = field(default_factory=dict)
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SSHRule:
    """An entry of ``ssh``. ``check_period`` in seconds, ``None`` = the default, 0 = always."""

    action: str
    sources: tuple[Selector, ...]
    targets: tuple[Selector, ...]
    users: tuple[str, ...]
    check_period: int | None = None
    accept_env: tuple[str, ...] = ()
    postures: tuple[str, ...] = ()
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SSHTest:
    """An entry of ``sshTests``."""

    source: str
    targets: tuple[str, ...]
    accept: tuple[str, ...]
    check: tuple[str, ...]
    deny: tuple[str, ...]
    posture_attributes: Mapping[str, Any] = field(default_factory=dict)
    offset: int = 0


@dataclass(frozen=True, slots=True)
class NodeAttributes:
    """An entry of ``nodeAttrs``: attributes and app capabilities for its targets, or their address pool."""

    targets: tuple[Selector, ...]
    attributes: tuple[str, ...] = ()
    app: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ip_pool: tuple[Prefix, ...] = ()
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Assertion:
    """One condition of a posture.

    ``value`` is a string, number or boolean; a tuple of them for ``IN`` and ``NOT IN``, ``None`` for
    ``IS SET`` and ``NOT SET``. The other operators are ``==``, ``!=``, ``<``, ``<=``, ``>`` and ``>=``.
    """

    attribute: str
    operator: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file. ``text`` is what was parsed, byte for byte."""

    text: str = ""
    rules: tuple[Rule, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: Mapping[str, IPSet] = field(default_factory=dict)
    ipsets: Mapping[str, Addresses] = field(default_factory=dict)
    tag_owners: Mapping[str, tuple[Selector, ...]] = field(default_factory=dict)
    auto_approvers: AutoApprovers = AutoApprovers()
    ssh: tuple[SSHRule, ...] = ()
    node_attrs: tuple[NodeAttributes, ...] = ()
    postures: Mapping[str, tuple[Assertion, ...]] = field(default_factory=dict)
    default_source_posture: tuple[str, ...] = ()
    tests: tuple[AccessTest, ...] = ()
    ssh_tests: tuple[SSHTest, ...] = ()
    randomize_client_port: bool = False
    disable_ipv4: bool = False
    one_cgnat_route: str = ""
