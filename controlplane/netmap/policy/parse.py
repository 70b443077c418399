"""From the text of a policy file to a :class:`Policy`: whatever can be refused without knowing the tailnet. Pure."""

from __future__ import annotations

from controlplane.netmap.policy.model import Policy


def parse_policy(text: str) -> Policy:
    """The policy that a HuJSON text says; :class:`PolicyError` with its place when it is refused."""
    raise NotImplementedError
