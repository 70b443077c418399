"""From the text of a policy file to a :class:`Policy`: whatever can be refused without knowing the tailnet.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from controlplane.netmap.policy import hujson
from controlplane.netmap.policy.errors import PolicyError, located, quoted
from controlplane.netmap.policy.hujson import Value
from controlplane.netmap.policy.model import AccessTest, Policy, Rule, Service, Target
from controlplane.netmap.policy.parse_names import (
    parse_auto_approvers,
    parse_groups,
    parse_hosts,
    parse_ipsets,
    parse_tag_owners,
    parse_tags,
)
from controlplane.netmap.policy.parse_nodeattrs import parse_node_attrs
from controlplane.netmap.policy.parse_postures import parse_posture_names, parse_postures
from controlplane.netmap.policy.parse_rules import parse_acls, parse_grants
from controlplane.netmap.policy.parse_selectors import Names
from controlplane.netmap.policy.parse_ssh import parse_ssh, parse_ssh_tests
from controlplane.netmap.policy.reading import attribute_values, flag, items, members, text, texts
from controlplane.netmap.policy.selectors import Anything

SECTIONS = (
    "acls",
    "grants",
    "groups",
    "hosts",
    "ipsets",
    "tagOwners",
    "autoApprovers",
    "nodeAttrs",
    "ssh",
    "postures",
    "defaultSrcPosture",
    "tests",
    "sshTests",
    "randomizeClientPort",
    "disableIPv4",
    "oneCGNATRoute",
)
TEST_FIELDS = ("src", "proto", "accept", "deny", "srcPostureAttrs", "user", "allow")
ONE_CGNAT_ROUTE = ("", "mac-always", "mac-never")
EVERYONE_REACHES_EVERYONE = Rule((Anything("*"),), (Target(Anything("*"), (Service(),)),))


def parse_policy(source: str, provider_groups: Collection[str] | None = None) -> Policy:
    """The policy that a HuJSON text says; :class:`PolicyError` with its place when it is refused.

    ``provider_groups`` are the groups that the identity provider knows: a rule may name them beside those of
    the file, and no others. ``None``: they are not known here, and any group may be named.
    """
    try:
        return _policy(source, hujson.parse(source), provider_groups)
    except hujson.HuJSONError as error:
        raise PolicyError(error.message, at=(error.line, error.column)) from error
    except PolicyError as error:
        raise located(error, source) from None


def _policy(source: str, root: Value, provider_groups: Collection[str] | None) -> Policy:
    sections = members(root, SECTIONS, "policy")
    hosts, groups = parse_hosts(sections.get("hosts")), parse_groups(sections.get("groups"))
    ipsets, postures = parse_ipsets(sections.get("ipsets"), hosts), parse_postures(sections.get("postures"))
    names = Names(parse_tags(sections.get("tagOwners")), groups.keys(), hosts, ipsets, provider_groups)
    rules = parse_acls(sections.get("acls"), names, postures)
    rules += parse_grants(sections.get("grants"), names, postures)
    if "acls" not in sections and "grants" not in sections:
        rules.append(EVERYONE_REACHES_EVERYONE)  # a file that says nothing of access closes nothing
    return Policy(
        text=source,
        rules=tuple(rules),
        groups=groups,
        hosts=hosts,
        ipsets=ipsets,
        tag_owners=parse_tag_owners(sections.get("tagOwners"), names),
        auto_approvers=parse_auto_approvers(sections.get("autoApprovers"), names),
        ssh=parse_ssh(sections.get("ssh"), tags=names.tags, postures=postures),
        node_attrs=parse_node_attrs(sections.get("nodeAttrs"), tags=names.tags, hosts=hosts),
        postures=postures,
        default_source_posture=parse_posture_names(
            sections.get("defaultSrcPosture"), postures, "defaultSrcPosture"
        ),
        tests=tuple(_test(entry) for entry in items(sections.get("tests"), "tests")),
        ssh_tests=parse_ssh_tests(sections.get("sshTests"), tags=names.tags),
        randomize_client_port=flag(sections.get("randomizeClientPort"), "randomizeClientPort"),
        disable_ipv4=flag(sections.get("disableIPv4"), "disableIPv4"),
        one_cgnat_route=_one_cgnat_route(sections.get("oneCGNATRoute")),
    )


def _test(entry: Value) -> AccessTest:
    """``user`` and ``allow`` are older names of ``src`` and ``accept``."""
    fields = members(entry, TEST_FIELDS, "test")
    accept, deny = fields.get("accept") or fields.get("allow"), fields.get("deny")
    return AccessTest(
        source=text(fields.get("src") or fields.get("user"), "src"),
        protocol=text(fields.get("proto"), "proto"),
        accept=tuple(item for item, _ in texts(accept, "accept")),
        deny=tuple(item for item, _ in texts(deny, "deny")),
        posture_attributes=attribute_values(fields.get("srcPostureAttrs"), "srcPostureAttrs"),
        offset=entry.start,
    )


def _one_cgnat_route(value: Value | None) -> str:
    choice = text(value, "oneCGNATRoute")
    if choice not in ONE_CGNAT_ROUTE:
        message = f'oneCGNATRoute: {quoted(choice)} is not valid; use "mac-always", "mac-never" or ""'
        raise PolicyError(message, value.start if value else None)
    return choice
