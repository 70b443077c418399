"""The table of roles, cell by cell, as the documentation prints it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from accounts.roles import TABLE, Capability, Role, can, outranks

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
