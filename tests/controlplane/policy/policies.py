"""Policies by the thousand: mostly right, with words of the language also where they do not belong."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.controlplane.policy.texts import a_value, damaged, noisy

NAMES = (
    "*", "user0@example.com", "user1@example.com", "nobody@example.com", "group:g0", "group:g1",
    "group:none", "tag:t0", "tag:t1", "tag:none", "host0", "nowhere", "ipset:lan", "100.64.0.1",
    "10.0.0.0/16", "10.0.0.1/16", "fd7a:115c:a1e0::1", "0.0.0.0/0", "::/0", "autogroup:member",
    "autogroup:tagged", "autogroup:self", "autogroup:internet", "autogroup:admin", "autogroup:owner",
    "autogroup:nonroot", "autogroup:danger-all", "autogroup:other", "user:*@example.com",
    "localpart:*@example.com", "", ":", "ñ", "host-1",
)  # fmt: skip
GOOD = (
    "*",
    "user0@example.com",
    "group:g0",
    "tag:t0",
    "tag:t1",
    "100.64.0.1",
    "autogroup:member",
    "autogroup:tagged",
)
PORTS = ("*", "22", "80,443", "1000-2000", "0", "65535", "65536", "2-1", "", "x", "22,", "-1", " 22")
PROTOCOLS = ("", "tcp", "udp", "icmp", "sctp", "6", "256", "-1", "egp", "TCP", "1.5")
ACTIONS = ("accept", "check", "deny", "")
PERIODS = ("always", "1h", "30m", "0s", "168h", "169h", "-1h", "1 h", "x")
POSTURES = (
    "node:os == 'linux'",
    "node:tsVersion >= '1.40'",
    "custom:x IS SET",
    "node:os IN ['a', 'b']",
    "node:os ==",
    "x",
)
SECTIONS = (
    "acls", "grants", "groups", "hosts", "ipsets", "tagOwners", "autoApprovers", "nodeAttrs", "ssh",
    "postures", "tests", "sshTests", "randomizeClientPort", "disableIPv4", "OneCGNATRoute", "other",
)  # fmt: skip


def a_policy(seed: int) -> str:
    """The policy of a seed: half of them well-formed, most with something that is wrong."""
    random = Random(seed)
    wild = random.random() < 0.6
    policy = _Policy(random, 0.12 if wild else 0.0)
    text = json.dumps(policy.whole()) if random.random() < 0.5 else noisy(policy.whole(), random)
    return damaged(text, random) if wild and random.random() < 0.3 else text


class _Policy:
    """Makes one policy; ``wildness`` is how often something comes where it does not belong."""

    def __init__(self, random: Random, wildness: float) -> None:
        self.random, self.wildness = random, wildness

    def whole(self) -> Any:
        base = {
            "groups": {"group:g0": ["user0@example.com"], "group:g1": ["user1@example.com"]},
            "tagOwners": {"tag:t0": ["group:g0"], "tag:t1": ["tag:t0", "user1@example.com"]},
            "hosts": {"host0": "10.0.0.1"},
            "ipsets": {"ipset:lan": ["add 10.0.0.0/16", "remove 10.0.0.1"]},
            "postures": {"posture:p": ["node:os == 'linux'"]},
        }
        for section in self.random.sample(SECTIONS[:12], self.random.randrange(1, 5)):
            if self.wildness or section not in base:
                base[section] = self.odd(self.section(section))
        if self.wildness and self.random.random() < 0.1:
            base[self.random.choice(SECTIONS)] = self.odd(True)
        return self.odd(base) if self.random.random() < 0.05 else base

    def section(self, name: str) -> Any:
        match name:
            case "acls":
                return self.some(self.acl)
            case "grants":
                return self.some(self.grant)
            case "ssh":
                return self.some(self.ssh)
            case "tests":
                return self.some(lambda: {"src": self.name(), "accept": self.some(self.target), "deny": []})
            case "sshTests":
                return self.some(
                    lambda: {"src": self.name(), "dst": self.names(), "accept": ["root"], "deny": ["x"]}
                )
            case "nodeAttrs":
                return self.some(lambda: {"target": self.names(), "attr": ["randomize-client-port"]})
            case "autoApprovers":
                return {"routes": {"10.0.0.0/16": self.names()}, "exitNode": self.names()}
            case "hosts":
                return {self.name(): self.name()}
            case "ipsets":
                return {"ipset:lan": self.names(), "ipset:b": ["add ipset:lan", "remove host0"]}
            case "postures":
                return {"posture:p": self.some(lambda: self.random.choice(POSTURES))}
            case "groups":
                return {"group:g0": self.names(), "group:g1": self.names()}
            case _:
                return {"tag:t0": self.names(), "tag:t1": ["tag:t0"]}

    def acl(self) -> dict[str, Any]:
        rule: dict[str, Any] = {"action": "accept", "src": self.names(), "dst": self.some(self.target)}
        return rule | self.extras()

    def grant(self) -> dict[str, Any]:
        rule: dict[str, Any] = {"src": self.names(), "dst": self.names()}
        if self.random.random() < 0.8:
            rule["ip"] = self.some(lambda: self.choice(("*", "tcp:22", "udp:*", "443", "icmp:*"), PORTS))
        if self.random.random() < 0.3:
            rule["app"] = {"example.com/cap/a": [self.odd({"x": 1})]}
        if self.random.random() < 0.2:
            rule["via"] = ["tag:t0"] if not self.wildness else self.names()
        return rule | ({"srcPosture": ["posture:p"]} if self.random.random() < 0.2 else {})

    def ssh(self) -> dict[str, Any]:
        rule: dict[str, Any] = {
            "action": self.choice(("accept", "check"), ACTIONS),
            "src": ["autogroup:member"] if not self.wildness else self.names(),
            "dst": ["autogroup:self"] if not self.wildness else self.names(),
            "users": ["root", "autogroup:nonroot"] if not self.wildness else self.names(),
        }
        if self.wildness and self.random.random() < 0.3:
            rule["checkPeriod"] = self.random.choice(PERIODS)
        return rule

    def extras(self) -> dict[str, Any]:
        if self.random.random() < 0.7:
            return {}
        return {"proto": self.choice(("tcp", "udp"), PROTOCOLS)}

    def target(self) -> str:
        return f"{self.name()}:{self.choice(PORTS[:4], PORTS)}"

    def name(self) -> str:
        return self.choice(GOOD, NAMES)

    def names(self) -> Any:
        return self.some(self.name)

    def some(self, make: Any) -> Any:
        return self.odd([make() for _ in range(self.random.randrange(1, 4))])

    def choice(self, good: tuple[str, ...], every: tuple[str, ...]) -> str:
        return self.random.choice(every if self.random.random() < self.wildness else good)

    def odd(self, value: Any) -> Any:
        """Now and then something else."""
        return a_value(self.random) if self.random.random() < self.wildness / 6 else value
