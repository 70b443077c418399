"""The table of roles, cell by cell, as the documentation prints it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from accounts.roles import RANK, TABLE, Capability, Role, can, outranks

C = Capability
COLUMNS = (
    Role.OWNER,
    Role.ADMIN,
    Role.IT_ADMIN,
    Role.NETWORK_ADMIN,
    Role.AUDITOR,
    Role.BILLING_ADMIN,
    Role.MEMBER,
)
# One row for each row of the documentation's table: y = yes, . = no.
ROWS = {
    C.SEE_ALL: "yyyyy..",
    C.MANAGE_DEVICES: "yyy....",
    C.MANAGE_NETWORK: "yy.y...",
    C.CREATE_KEYS: "yyyy...",
    C.CREATE_TAGGED_KEYS: "yy.....",
    C.MANAGE_USERS: "yyy....",
    C.MANAGE_SETTINGS: "yyy....",
    C.MANAGE_RELAYS: "yy.y...",
    C.OWN_TAILNET: "y......",
    C.SEE_OWN_DEVICES: "yyyyy.y",
    C.MANAGE_OWN_DEVICES: "yyy...y",
    C.CREATE_OWN_KEYS: "yyyy..y",
}


@dataclass
class Place:
    role: str
    is_active: bool = True


@pytest.mark.parametrize("capability", Capability)
def test_each_cell_is_as_printed(capability: Capability) -> None:
    cells = "".join("y" if can(Place(role), capability) else "." for role in COLUMNS)
    assert cells == ROWS[capability]


def test_every_role_has_a_column() -> None:
    assert set(TABLE) == set(Role) == set(COLUMNS)


def test_nobody_and_the_inactive_may_nothing() -> None:
    for capability in Capability:
        assert not can(None, capability)
        assert not can(Place(Role.OWNER, is_active=False), capability)


def test_one_acts_only_on_those_below() -> None:
    assert outranks(Place(Role.OWNER), Role.ADMIN)
    assert outranks(Place(Role.ADMIN), Role.IT_ADMIN)
    assert not outranks(Place(Role.IT_ADMIN), Role.NETWORK_ADMIN)
    assert not any(outranks(Place(role), Role.OWNER) for role in Role)
    assert not any(outranks(Place(role), role) for role in Role)


# --- docs/roles.md -----------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "roles.md"
# What each row of the document means: the capability for everything, and the one for what is one's own.
MEANING: dict[str, tuple[Capability, Capability | None]] = {
    "see all devices, users, settings, logs": (C.SEE_ALL, C.SEE_OWN_DEVICES),
    "approve, rename, expire, delete devices; set a device's exit node": (
        C.MANAGE_DEVICES,
        C.MANAGE_OWN_DEVICES,
    ),
    "approve routes and exit nodes; DNS; policy": (C.MANAGE_NETWORK, None),
    "create auth keys": (C.CREATE_KEYS, C.CREATE_OWN_KEYS),
    "create auth keys with tags": (C.CREATE_TAGGED_KEYS, None),
    "users: approve, invite, roles below own, suspend": (C.MANAGE_USERS, None),
    "settings, contacts, webhooks, OAuth clients": (C.MANAGE_SETTINGS, None),
    "relays (the tailnet's own)": (C.MANAGE_RELAYS, None),
    "transfer or delete the tailnet": (C.OWN_TAILNET, None),
}


def documented(head: str) -> list[list[str]]:
    """The rows of the document's table that begins with this word, its head first."""
    lines = DOCUMENT.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def test_the_document_s_table_is_the_one_of_the_code() -> None:
    head, *rows = documented("may")
    roles = [Role(name) for name in head[1:]]
    assert set(roles) == set(Role)
    assert [row[0] for row in rows] == list(MEANING)
    for row in rows:
        every, own = MEANING[row[0]]
        for role, cell in zip(roles, row[1:], strict=True):
            may_every = every in TABLE[role]
            may_own = own is not None and own in TABLE[role]
            shown = "✓" if may_every else "own" if may_own else "\N{EN DASH}"
            assert cell.partition(" ")[0].strip(":,") == shown, (row[0], role)


def test_every_capability_is_documented() -> None:
    assert {capability for pair in MEANING.values() for capability in pair if capability} == set(Capability)


def test_the_document_s_ranks_are_those_of_the_code() -> None:
    _, *rows = documented("rank")
    assert {Role(name): int(rank) for rank, names in rows for name in names.split(", ")} == RANK
