"""A tailnet's access policy: checked, saved as a new version, published, and restored.

The text is the truth, byte for byte. What is saved has been parsed, held against the tailnet, and has passed
its own tests; whoever edits says which text they have edited (an ETag), so that two people lose nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models.functions import Length
from django.utils import timezone

from accounts.access import require_right
from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.errors import Invalid, NotFound, PreconditionFailed
from accounts.models import Tailnet
from accounts.roles import Capability
from accounts.services import audit
from accounts.tenancy import scope
from controlplane.models import PolicyVersion
from controlplane.netmap.policy.approvers import approves
from controlplane.netmap.policy.check import TESTS_FAILED, Checked, check
from controlplane.netmap.policy.default import TEXT as DEFAULT_TEXT
from controlplane.netmap.policy.errors import PolicyError, line_and_column
from controlplane.netmap.policy.hujson import MAX_POLICY_BYTES
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.testbench import TestFailure
from controlplane.netmap.policy.textdiff import diff
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot, UserSnapshot
from controlplane.policies import EMPTY_DIGEST, latest_policy
from controlplane.snapshots import load_part, load_tailnet
from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node
from nodes.selectors import waiting_routes
from nodes.services.routes import approve_waiting

MAX_COMMENT = 500
MAX_VERSIONS = 500  # of one tailnet; the oldest go
MAX_HISTORY_BYTES = 64 << 20  # of the texts of them all
MAX_AUDITED_DIFF = 200  # lines of a diff in the audit log, which is read as a whole
MAX_AUDITED_LINE = 500
NEVER_CHANGED = "ts-default"  # the ETag that stands for "while it is still the default"


class PolicyRefused(Invalid):
    """A text that cannot be saved: what is wrong with it, where (line and column), and which tests fail.

    ``syntax``: it is no HuJSON, which only its place tells.
    """

    def __init__(
        self,
        message: str,
        *,
        at: tuple[int, int] | None = None,
        syntax: bool = False,
        failures: tuple[TestFailure, ...] = (),
    ) -> None:
        super().__init__(message)
        self.at = at
        self.syntax = syntax
        self.failures = failures


@dataclass(frozen=True, slots=True)
class CurrentPolicy:
    """What is in force. ``version`` is ``None`` while nothing was ever saved."""

    text: str
    etag: str
    version: PolicyVersion | None

    @property
    def number(self) -> int:
        return self.version.number if self.version is not None else 0

    @property
    def is_default(self) -> bool:
        return self.text == DEFAULT_TEXT


# --- reading ---------------------------------------------------------------------------------------------


def digest_of(text: str) -> str:
    """The ETag of a text: its SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def text_of(version: PolicyVersion | None) -> str:
    """What a version says: the default where it has no text of its own, or there is none."""
    return DEFAULT_TEXT if version is None or version.digest == EMPTY_DIGEST else version.text


def current_policy(tailnet: Tailnet) -> CurrentPolicy:
    """What is in force. Needs the tailnet's scope."""
    version = latest_policy(tailnet)
    text = text_of(version)
    return CurrentPolicy(text, digest_of(text), version)


def policy_version(tailnet: Tailnet, number: int) -> PolicyVersion:
    """A version by its number; raises :class:`NotFound`. Needs the tailnet's scope."""
    found = PolicyVersion.objects.filter(tailnet=tailnet, number=number).first()
    if found is None:
        raise NotFound(f"there is no version {number} of the policy, or it is too long ago")
    return found


def diff_of_version(version: PolicyVersion) -> list[str]:
    """What a version changed of the one before it, as a unified diff. Needs the tailnet's scope."""
    older = PolicyVersion.objects.filter(tailnet=version.tailnet_id, number__lt=version.number)
    return diff(text_of(older.order_by("-number").first()), text_of(version))


# --- checking --------------------------------------------------------------------------------------------


def snapshot_of(tailnet: Tailnet) -> TailnetSnapshot:
    """The tailnet as policies are held against it."""
    found = load_tailnet(tailnet.pk)
    if found is None:
        raise NotFound("there is no such tailnet")
    return found


def check_policy(*, tailnet: Tailnet, text: str) -> Checked:
    """The text's policy, evaluated for the tailnet; raises :class:`PolicyRefused`, also for failing tests."""
    checked = parse_for(snapshot_of(tailnet), text)
    if checked.failures:
        raise PolicyRefused(TESTS_FAILED, failures=checked.failures)
    return checked


def parse_for(snapshot: TailnetSnapshot, text: str) -> Checked:
    """The same with failing tests among what it returns."""
    if len(text) > MAX_POLICY_BYTES:  # before anything looks at all of it
        raise PolicyRefused(f"a policy has at most {MAX_POLICY_BYTES} bytes")
    if (nul := text.find("\0")) >= 0:  # PostgreSQL keeps no text that has one
        at = line_and_column(text, nul)
        raise PolicyRefused("invalid character '\\u0000'", at=at, syntax=True)
    try:
        return check(text, snapshot)
    except PolicyError as error:
        raise PolicyRefused(error.message, at=error.at, syntax=error.offset is None) from error


# --- saving ----------------------------------------------------------------------------------------------


def save_policy(
    *,
    tailnet: Tailnet,
    text: str,
    by: Actor,
    etag: str | None = None,
    comment: str = "",
    restored: int | None = None,
) -> PolicyVersion:
    """Have this text in force; an empty one brings the default back. Returns the version it is from now on.

    ``etag`` names the text that was edited (:data:`NEVER_CHANGED`: the default); raises
    :class:`PreconditionFailed` when another one is in force, and :class:`PolicyRefused` for a text that is
    wrong or fails its tests. ``restored``: of which earlier version it is the text. The text that is in force
    already makes no new version.
    """
    if len(comment) > MAX_COMMENT:
        raise Invalid(f"a comment has at most {MAX_COMMENT} characters")
    with scope(tailnet=tailnet):
        require_right(by, Capability.MANAGE_NETWORK)
        _check_etag(current_policy(tailnet), etag)
    text = text if text.strip() else ""
    # Outside the lock: nobody has to wait while a long text is compiled for a large tailnet.
    checked = check_policy(tailnet=tailnet, text=text or DEFAULT_TEXT)
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_NETWORK)
        current = current_policy(change.tailnet)
        _check_etag(current, etag)
        if (text or DEFAULT_TEXT) == current.text:
            return current.version or PolicyVersion(
                tailnet=change.tailnet, number=0, text="", digest=EMPTY_DIGEST
            )
        made = PolicyVersion.objects.create(
            tailnet=change.tailnet,
            number=current.number + 1,
            text=text,
            digest=digest_of(text),
            author=by.user,
            author_name=by.name,
            comment=comment,
            restored=restored,
        )
        change.upsert("policyversion", made.pk)
        _record(change, current, made, by)
        _forget_oldest(change.tailnet)
        _approve_offers(change, checked.policy)
        return made


def restore_policy(*, tailnet: Tailnet, number: int, by: Actor, etag: str | None = None) -> PolicyVersion:
    """Have the text of an earlier version in force, as a new version; refused where it no longer fits."""
    with scope(tailnet=tailnet):
        require_right(by, Capability.MANAGE_NETWORK)
        text = policy_version(tailnet, number).text
    return save_policy(tailnet=tailnet, text=text, by=by, etag=etag, restored=number)


def _check_etag(current: CurrentPolicy, etag: str | None) -> None:
    if etag is None or etag == current.etag or (etag == NEVER_CHANGED and current.is_default):
        return
    raise PreconditionFailed("precondition failed, invalid old hash: the policy was changed meanwhile")


def _record(change: ChangeSet, old: CurrentPolicy, made: PolicyVersion, by: Actor) -> None:
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action="UPDATE",
        target_type="POLICY_FILE",
        target_id=made.number,
        target_name=change.tailnet.name,
        old={"version": old.number, "sha256": old.etag},
        new={
            "version": made.number,
            "sha256": digest_of(text_of(made)),
            "diff": _audited(diff(old.text, text_of(made))),
        },
        details=made.comment or (f"version {made.restored} restored" if made.restored else ""),
    )


def _audited(lines: list[str]) -> list[str]:
    shown = [line[:MAX_AUDITED_LINE] for line in lines[:MAX_AUDITED_DIFF]]
    left = len(lines) - len(shown)
    return [*shown, f"@@ {left} more lines @@"] if left else shown


def _forget_oldest(tailnet: Tailnet) -> None:
    """Keep the newest versions: so many, and so many bytes of them. What is in force stays anyway."""
    versions = PolicyVersion.objects.filter(tailnet=tailnet).order_by("-number")
    size, gone = 0, list[int]()
    for place, (pk, length) in enumerate(versions.values_list("pk", Length("text"))):
        size += length
        if place and (place >= MAX_VERSIONS or size > MAX_HISTORY_BYTES):
            gone.append(pk)
    if gone:
        PolicyVersion.objects.filter(pk__in=gone).delete()


def _approve_offers(change: ChangeSet, policy: Policy) -> None:
    """What devices offer and wait for, and the new policy approves by itself. Nothing loses its approval.

    Judged as the devices are now, under the lock: tags and owners may be others than when it was checked.
    """
    if not (policy.auto_approvers.routes or policy.auto_approvers.exit_node):
        return
    waiting: dict[int, list[str]] = {}
    for node_id, prefix in waiting_routes().values_list("node_id", "prefix"):
        waiting.setdefault(node_id, []).append(prefix)
    part = load_part(change.tailnet, node_ids=waiting, policy=policy)
    nodes = Node.objects.filter(pk__in=waiting).in_bulk()
    now = timezone.now()
    for node_id, node in part.nodes.items():
        if granted := approved(policy, node, waiting[node_id], part.users):
            approve_waiting(change, nodes[node_id], granted, now)


def approved(
    policy: Policy, node: NodeSnapshot, prefixes: Iterable[str], users: Mapping[int, UserSnapshot]
) -> set[str]:
    """Those of the prefixes that ``autoApprovers`` let the node serve; the two default routes go together."""
    granted = {prefix for prefix in prefixes if approves(policy, node, prefix, users)}
    return granted | (EXIT_ROUTES & set(prefixes) if granted & EXIT_ROUTES else set())


def failures_told(failures: Iterable[TestFailure]) -> list[dict[str, Any]]:
    """Failing tests as the API tells them."""
    return [{"user": one.source, "errors": list(one.errors)} for one in failures]
