"""Policies saved: checked, versioned, published, audited, told of, restored."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.actors import Actor
from accounts.errors import Forbidden, Invalid, NotFound, PreconditionFailed
from accounts.models import AuditEvent, Outbox, Tailnet
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane import policies as in_force
from controlplane.models import PolicyVersion
from controlplane.netmap.policy.default import TEXT as DEFAULT
from controlplane.netmap.policy.hujson import MAX_POLICY_BYTES
from controlplane.netmap.policy.model import Policy
from controlplane.services import policy as policies
from controlplane.services.policy import (
    CurrentPolicy,
    PolicyRefused,
    current_policy,
    diff_of_version,
    digest_of,
    restore_policy,
    save_policy,
    text_of,
)
from controlplane.services.webhooks import create_webhook
from controlplane.snapshots import load_tailnet
from tests.accounts import factories as people
from tests.nodes import factories as machines

pytestmark = pytest.mark.django_db
ME = Actor.command()
ONE = '{\n\t// nobody reaches anybody\n\t"acls": [],\n}\n'
TWO = '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:22"]}]}'


@pytest.fixture
def tailnet() -> Tailnet:
    return people.tailnet("ours")[0]


def now_in(tailnet: Tailnet) -> CurrentPolicy:
    with scope(tailnet=tailnet):
        return current_policy(tailnet)


def save(tailnet: Tailnet, text: str, **more: Any) -> PolicyVersion:
    return save_policy(tailnet=tailnet, text=text, by=ME, **more)


def version_of(tailnet: Tailnet) -> int:
    return Tailnet.objects.get(pk=tailnet.pk).netmap_version


def versions(tailnet: Tailnet) -> list[tuple[int, str]]:
    with scope(tailnet=tailnet):
        return list(PolicyVersion.objects.order_by("number").values_list("number", "text"))


def loaded(tailnet: Tailnet) -> Policy:
    found = load_tailnet(tailnet.pk)
    assert found is not None
    return found.policy


# --- versions --------------------------------------------------------------------------------------------


def test_before_anybody_saves_one_the_default_is_in_force(tailnet: Tailnet) -> None:
    current = now_in(tailnet)
    assert (current.text, current.number, current.is_default) == (DEFAULT, 0, True)
    assert loaded(tailnet).text == DEFAULT


def test_a_saved_text_is_in_force_byte_for_byte_and_netmaps_hear_of_it(tailnet: Tailnet) -> None:
    before = version_of(tailnet)
    made = save(tailnet, ONE, comment="a try")
    assert (made.number, made.text, made.author_name, made.comment) == (1, ONE, "manage.py", "a try")
    assert now_in(tailnet).text == loaded(tailnet).text == ONE
    assert loaded(tailnet).rules == ()
    assert version_of(tailnet) == before + 1
    assert save(tailnet, TWO).number == 2
    assert loaded(tailnet).text == TWO
    assert versions(tailnet) == [(1, ONE), (2, TWO)]


def test_the_text_in_force_makes_no_new_version(tailnet: Tailnet) -> None:
    assert save(tailnet, DEFAULT).number == 0
    assert save(tailnet, "").number == 0
    save(tailnet, ONE)
    before = version_of(tailnet)
    assert save(tailnet, ONE).number == 1
    assert (version_of(tailnet), len(versions(tailnet))) == (before, 1)


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_an_empty_text_brings_the_default_back(tailnet: Tailnet, empty: str) -> None:
    save(tailnet, ONE)
    made = save(tailnet, empty)
    assert (made.number, made.text, text_of(made)) == (2, "", DEFAULT)
    assert now_in(tailnet).is_default
    assert loaded(tailnet).text == DEFAULT


def test_an_etag_guards_against_changes_meanwhile(tailnet: Tailnet) -> None:
    seen = now_in(tailnet).etag
    save(tailnet, ONE, etag=seen)
    for stale in (seen, "ts-default", "nonsense"):
        with pytest.raises(PreconditionFailed):
            save(tailnet, TWO, etag=stale)
    save(tailnet, TWO, etag=digest_of(ONE))
    save(tailnet, "")
    assert save(tailnet, ONE, etag="ts-default").number == 4


def test_an_old_version_is_restored_as_a_new_one(tailnet: Tailnet) -> None:
    save(tailnet, ONE)
    save(tailnet, TWO)
    made = restore_policy(tailnet=tailnet, number=1, by=ME)
    assert (made.number, made.text, made.restored) == (3, ONE, 1)
    save(tailnet, "")
    save(tailnet, TWO)
    back = restore_policy(tailnet=tailnet, number=4, by=ME)
    assert (back.number, text_of(back), back.restored) == (6, DEFAULT, 4)
    for number in (0, 7):
        with pytest.raises(NotFound):
            restore_policy(tailnet=tailnet, number=number, by=ME)
    other, _ = people.tailnet("theirs")
    with pytest.raises(NotFound):
        restore_policy(tailnet=other, number=1, by=ME)


def test_each_version_tells_what_it_changed(tailnet: Tailnet) -> None:
    save(tailnet, ONE)
    made = save(tailnet, ONE.replace("nobody", "somebody"))
    with scope(tailnet=tailnet):
        lines = diff_of_version(made)
        first = diff_of_version(PolicyVersion.objects.get(number=1))
    assert "-\t// nobody reaches anybody" in lines
    assert "+\t// somebody reaches anybody" in lines
    assert any(line.startswith("-") for line in first), "of the default that was before it"


def test_history_is_bounded_in_number_and_size(tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_VERSIONS", 3)
    for number in range(5):
        save(tailnet, f"// {number}\n{ONE}")
    assert [number for number, _ in versions(tailnet)] == [3, 4, 5]
    monkeypatch.setattr(policies, "MAX_HISTORY_BYTES", 5)
    save(tailnet, ONE)
    assert [number for number, _ in versions(tailnet)] == [6], "what is in force stays whatever its size"


# --- what is told ----------------------------------------------------------------------------------------


def test_it_is_audited_with_its_diff_and_webhooks_hear_of_it(tailnet: Tailnet) -> None:
    create_webhook(tailnet=tailnet, url="https://example.com/", subscriptions=["policyUpdate"], by=ME)
    save(tailnet, ONE)
    save(tailnet, ONE.replace("nobody", "who"), comment="clearer")
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.filter(target_type="POLICY_FILE").latest("pk")
        told = Outbox.objects.filter(subject="policyUpdate").count()
    assert (event.action, event.target_id, event.details) == ("UPDATE", "2", "clearer")
    assert event.old == {"version": 1, "sha256": digest_of(ONE)}
    assert event.new["version"] == 2
    assert "+\t// who reaches anybody" in event.new["diff"]
    assert told == 2


def test_the_diff_in_the_audit_log_is_bounded(tailnet: Tailnet) -> None:
    save(tailnet, "\n".join(f"// {number} {'x' * 1000}" for number in range(1000)) + f"\n{ONE}")
    with scope(tailnet=tailnet):
        told = AuditEvent.objects.latest("pk").new["diff"]
    assert len(told) == policies.MAX_AUDITED_DIFF + 1
    assert max(map(len, told)) <= policies.MAX_AUDITED_LINE


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "at", "syntax"),
    [
        ('{"acls": [}', "", (1, 11), True),
        (
            '{\n  "acls": [{"action": "accept", "src": ["tag:no"], "dst": ["*:*"]}]\n}',
            "tag not found",
            2,
            False,
        ),
        ("{} // a\x00b", "invalid character", (1, 8), True),
        ("x" * (MAX_POLICY_BYTES + 1), "at most", None, False),
    ],
)
def test_a_wrong_text_is_refused_with_its_place(
    tailnet: Tailnet, text: str, message: str, at: Any, syntax: bool
) -> None:
    before = version_of(tailnet)
    with pytest.raises(PolicyRefused) as refused:
        save(tailnet, text)
    place = refused.value.at
    assert (message in str(refused.value), refused.value.syntax) == (True, syntax)
    assert (place and place[0] if isinstance(at, int) else place) == at
    assert (version_of(tailnet), versions(tailnet)) == (before, [])


def test_failing_tests_keep_a_text_from_being_saved(tailnet: Tailnet) -> None:
    text = '{"acls": [], "tests": [{"src": "ana@example.com", "accept": ["100.64.0.1:22"]}]}'
    with pytest.raises(PolicyRefused) as refused:
        save(tailnet, text)
    (failure,) = refused.value.failures
    assert (str(refused.value), failure.source) == ("test(s) failed", "ana@example.com")
    assert failure.errors
    assert versions(tailnet) == []


def test_a_comment_is_bounded(tailnet: Tailnet) -> None:
    with pytest.raises(Invalid):
        save(tailnet, ONE, comment="x" * (policies.MAX_COMMENT + 1))


def test_only_who_may_change_the_network_saves(tailnet: Tailnet) -> None:
    for role in (Role.ADMIN, Role.NETWORK_ADMIN):
        by = Actor.person(people.member(tailnet, role).user)
        assert save_policy(tailnet=tailnet, text=f"// {role}\n{ONE}", by=by).author == by.user
    for role in (Role.IT_ADMIN, Role.AUDITOR, Role.MEMBER):
        by = Actor.person(people.member(tailnet, role).user)
        with pytest.raises(Forbidden):
            save_policy(tailnet=tailnet, text=ONE, by=by)
        with pytest.raises(Forbidden):
            restore_policy(tailnet=tailnet, number=1, by=by)


def test_a_stored_text_that_is_refused_now_allows_nothing(tailnet: Tailnet) -> None:
    made = save(tailnet, ONE)
    with scope(tailnet=tailnet):
        PolicyVersion.objects.filter(pk=made.pk).update(text="{", digest=digest_of("{"))
    assert loaded(tailnet) == Policy()


def test_two_tailnets_have_policies_of_their_own(tailnet: Tailnet) -> None:
    other, _ = people.tailnet("theirs")
    machines.node(other, tags=["tag:x"], preapproved=True)
    save(tailnet, ONE)
    save(other, TWO)
    assert (loaded(tailnet).text, loaded(other).text) == (ONE, TWO)
    assert now_in(other).number == 1


def test_parsed_policies_are_forgotten_when_their_texts_are_long(
    tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "MAX_PARSED_LENGTH", 250)
    monkeypatch.setattr(in_force, "_policies", {})
    texts = [f'{{"acls": []}} /* {number} */'.ljust(100) for number in range(4)]
    for text in texts:
        save(tailnet, text)
        load_tailnet(tailnet.pk)
    assert list(in_force._policies) == [digest_of(text) for text in texts[2:]]
    save(tailnet, '{"acls": []}'.ljust(300))
    load_tailnet(tailnet.pk)
    assert len(in_force._policies) == 1, "one alone is kept however long"
