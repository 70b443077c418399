"""The policy of a tailnet that is in force, parsed once in a process for each text."""

from __future__ import annotations

import hashlib
import logging
import threading

from accounts.models import Tailnet
from controlplane.models import PolicyVersion
from controlplane.netmap.policy.default import default_policy
from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.parse import parse_policy

logger = logging.getLogger("trenza.policies")

MAX_PARSED_POLICIES = 64  # in this process
MAX_PARSED_LENGTH = 32 << 20  # characters of their texts together; one alone is kept however long
EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()  # of the version that stands for the default
_policies: dict[str, Policy] = {}
_policies_lock = threading.Lock()


def latest_policy(tailnet: Tailnet) -> PolicyVersion | None:
    """The version in force, without its text; ``None`` = the default, never changed. Needs the scope."""
    return PolicyVersion.objects.filter(tailnet=tailnet).defer("text").order_by("-number").first()


def load_policy(tailnet: Tailnet) -> Policy:
    """The policy in force, parsed. Needs the tailnet's scope.

    A text that this release refuses, which another one has saved, allows nothing.
    """
    version = latest_policy(tailnet)
    if version is None or version.digest == EMPTY_DIGEST:
        return default_policy()
    try:
        return _parsed(version.digest, version)
    except PolicyError as error:
        logger.error(
            "policy %d of the tailnet %s is refused now, so that it allows nothing: %s",
            version.number,
            tailnet.name,
            error,
        )
        return Policy()


def _parsed(digest: str, version: PolicyVersion) -> Policy:
    """Texts are parsed once in a process: each reading of a tailnet asks for its policy."""
    found = _policies.get(digest)
    if found is None:
        found = parse_policy(version.text)
        with _policies_lock:
            _make_room(len(found.text))
            _policies[digest] = found
    return found


def _make_room(length: int) -> None:
    """Forget the policies that were parsed first, until one of this length may be kept, too."""
    left = MAX_PARSED_LENGTH - length - sum(len(policy.text) for policy in _policies.values())
    while _policies and (len(_policies) >= MAX_PARSED_POLICIES or left < 0):
        left += len(_policies.pop(next(iter(_policies))).text)
