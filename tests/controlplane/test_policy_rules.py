"""What the policy decides when devices join, offer routes, and are given tags."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from accounts.actors import Actor
from accounts.errors import Conflict, Forbidden, Invalid
from accounts.models import AuditEvent, Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.groups import set_groups
from accounts.services.profiles import refresh_profile
from accounts.tenancy import scope
from controlplane.netmap.policy.check import Checked
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.services import policy as policies
from controlplane.services.policy import save_policy
from controlplane.snapshots import load_tailnet
from nodes.models import Node, PendingLogin, Route
from nodes.services.authkeys import create_auth_key
from nodes.services.lifecycle import set_tags
from nodes.services.logins import begin_login, confirm_login
from nodes.services.registration import Outcome, RegistrationRequest, answer_registration
from nodes.services.routes import decline_routes, set_route
from nodes.services.volatile import Volatile, update_node_state
from tests.accounts import factories as people
from tests.api import as_client
from tests.nodes import factories as machines
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()
EXIT = {"0.0.0.0/0", "::/0"}


@pytest.fixture
def tailnet() -> Tailnet:
    return people.tailnet("ours")[0]


def rules(tailnet: Tailnet, **sections: Any) -> None:
    save_policy(tailnet=tailnet, text=json.dumps({"acls": []} | sections), by=ME)


# --- whose device may bear a tag -------------------------------------------------------------------------


def join(tailnet: Tailnet, user: User, *tags: str) -> Node:
    """``tailscale up --advertise-tags``, confirmed by a person."""
    machine = machines.machine(hostinfo={"Hostname": "box", "RequestTags": list(tags)})
    return confirm_login(pending=begin_login(machine=machine).login, user=user, tailnet=tailnet)


def may(tailnet: Tailnet, user: User, *tags: str) -> bool:
    """Whether they are given; else the machine is told in words that clients know."""
    try:
        node = join(tailnet, user, *tags)
    except Invalid:
        login = PendingLogin.objects.order_by("-pk")[0]
        return login.refusal != f"requested tags [{' '.join(tags)}] are invalid or not permitted"
    return (node.tags, node.user) == (sorted(tags), None)


def test_owners_of_a_tag_give_it_to_their_devices(tailnet: Tailnet) -> None:
    ana, ben, cho = (people.member(tailnet) for _ in range(3))
    rules(
        tailnet,
        groups={"group:ops": [ben.user.email]},
        tagOwners={
            "tag:a": [ana.user.email],
            "tag:b": ["group:ops"],
            "tag:c": ["autogroup:member"],
            "tag:d": [],
            "tag:e": ["tag:a"],
        },
    )
    allowed = {
        (place, tag) for place in (ana, ben, cho) for tag in "abcde" if may(tailnet, place.user, f"tag:{tag}")
    }
    assert allowed == {(ana, "a"), (ben, "b"), (ana, "c"), (ben, "c"), (cho, "c")}
    assert may(tailnet, ana.user, "tag:a", "tag:c")
    assert not may(tailnet, ana.user, "tag:a", "tag:b"), "all of them or none"
    assert not may(tailnet, ana.user, "tag:undefined")


@pytest.mark.parametrize(
    ("role", "owns"),
    [(Role.ADMIN, True), (Role.NETWORK_ADMIN, True), (Role.IT_ADMIN, False), (Role.AUDITOR, False)],
)
def test_who_writes_the_rules_owns_every_tag_there_is(tailnet: Tailnet, role: Role, owns: bool) -> None:
    user = people.member(tailnet, role).user
    rules(tailnet, tagOwners={"tag:a": []})
    assert may(tailnet, user, "tag:a") is owns
    assert not may(tailnet, user, "tag:b")


def test_without_defined_tags_nobody_gives_any(tailnet: Tailnet) -> None:
    assert not may(tailnet, people.member(tailnet, Role.ADMIN).user, "tag:a")


def test_groups_of_the_provider_and_of_the_tailnet_own_tags(tailnet: Tailnet) -> None:
    told, given, nobody = (people.member(tailnet) for _ in range(3))
    User.objects.filter(pk=told.user_id).update(groups=["group:told"])
    set_groups(membership=given, groups=["group:given"], by=ME)
    rules(tailnet, tagOwners={"tag:a": ["group:told", "group:given"]})
    owners = [may(tailnet, place.user, "tag:a") for place in (told, given, nobody)]
    assert owners == [True, True, False]
    set_groups(membership=given, groups=[], by=ME)
    assert not may(tailnet, given.user, "tag:a")


def test_a_policy_of_another_tailnet_says_nothing(tailnet: Tailnet) -> None:
    other, _ = people.tailnet("theirs")
    place = people.member(tailnet)
    rules(other, tagOwners={"tag:a": ["autogroup:member"]})
    assert not may(tailnet, place.user, "tag:a")


# --- which tags there are --------------------------------------------------------------------------------


def test_once_tags_are_defined_there_are_no_others(tailnet: Tailnet) -> None:
    node = machines.node(tailnet, people.member(tailnet).user)
    set_tags(node=node, tags=["tag:old"], by=ME)
    create_auth_key(tailnet=tailnet, by=ME, tags=["tag:old"])
    rules(tailnet, tagOwners={"tag:a": []})
    with pytest.raises(Invalid, match=r"requested tags \[tag:b\] are invalid or not permitted"):
        set_tags(node=node, tags=["tag:a", "tag:b"], by=ME)
    assert set_tags(node=node, tags=["tag:a", "tag:old"], by=ME).tags == ["tag:a", "tag:old"], "it has one"
    with pytest.raises(Invalid, match="tag:b"):
        create_auth_key(tailnet=tailnet, by=ME, tags=["tag:b"])
    assert create_auth_key(tailnet=tailnet, by=ME, tags=["tag:a"]).key.tags == ["tag:a"]


@pytest.mark.parametrize(("role", "owns"), [(Role.ADMIN, True), (Role.IT_ADMIN, False), (Role.MEMBER, True)])
def test_who_manages_devices_gives_them_only_tags_of_their_own(
    tailnet: Tailnet, role: Role, owns: bool
) -> None:
    """By the panel and by API: both call this, with the person who acts."""
    person, device = people.member(tailnet, role).user, machines.node(tailnet, people.member(tailnet).user)
    owners = [person.email] if role is Role.MEMBER else []
    set_tags(node=device, tags=["tag:any"], by=Actor.person(person))
    rules(tailnet, tagOwners={"tag:a": owners, "tag:any": []})
    if owns:
        set_tags(node=device, tags=["tag:a", "tag:any"], by=Actor.person(person))
        return
    with pytest.raises(Forbidden, match=r"requested tags \[tag:a\] are invalid or not permitted"):
        set_tags(node=device, tags=["tag:a"], by=Actor.person(person))
    assert set_tags(node=device, tags=["tag:any"], by=Actor.person(person)).tags == ["tag:any"], "it has it"


def test_a_client_gives_the_tags_that_its_own_own(tailnet: Tailnet) -> None:
    rules(tailnet, tagOwners={"tag:operator": [], "tag:proxy": ["tag:operator"], "tag:other": []})
    node = machines.node(tailnet, people.member(tailnet).user)
    api = as_client(tailnet, "devices:core", "auth_keys", tags=["tag:operator"])
    wanted = {"keyType": "auth", "capabilities": {"devices": {"create": {"tags": ["tag:proxy"]}}}}
    assert api.post("/tailnet/-/keys", wanted)["capabilities"]["devices"]["create"]["tags"] == ["tag:proxy"]
    api.post(f"/device/{node.stable_id}/tags", {"tags": ["tag:proxy"]})
    assert api.get(f"/device/{node.stable_id}")["tags"] == ["tag:proxy"]
    wanted["capabilities"] = {"devices": {"create": {"tags": ["tag:other"]}}}
    assert api.refusal("POST", "/tailnet/-/keys", wanted).status == 403
    assert api.refusal("POST", f"/device/{node.stable_id}/tags", {"tags": ["tag:other"]}).status == 403


# --- what needs nobody's approval ------------------------------------------------------------------------


def approved_of(node: Node) -> set[str]:
    with scope(tailnet=node.tailnet_id):
        rows = Route.objects.filter(node=node, approved_at__isnull=False)
        return set(rows.values_list("prefix", flat=True))


def router(tailnet: Tailnet, user: User | None, prefixes: Iterable[str], **more: Any) -> Node:
    hostinfo = {"Hostname": "gate", "RoutableIPs": list(prefixes)}
    return machines.node(tailnet, user, hostinfo=hostinfo, preapproved=True, **more)


def offer(node: Node, *prefixes: str) -> None:
    report = Volatile(node_id=node.pk, hostinfo={"Hostname": "gate", "RoutableIPs": list(prefixes)})
    update_node_state(tailnet=node.tailnet_id, report=report)


APPROVERS = {
    "routes": {"10.0.0.0/8": ["tag:gate"], "192.168.7.0/24": ["autogroup:member"]},
    "exitNode": ["tag:gate"],
}


def test_offers_are_approved_when_they_are_made(tailnet: Tailnet) -> None:
    rules(tailnet, tagOwners={"tag:gate": []}, autoApprovers=APPROVERS)
    everything = ["10.1.0.0/16", "192.168.7.0/25", "172.16.0.0/12", *EXIT]
    tagged = router(tailnet, None, everything, tags=["tag:gate"])
    owned = router(tailnet, people.member(tailnet).user, everything)
    assert approved_of(tagged) == {"10.1.0.0/16", *EXIT}
    assert approved_of(owned) == {"192.168.7.0/25"}
    offer(owned, "192.168.7.0/24", "192.168.0.0/16")
    assert approved_of(owned) == {"192.168.7.0/24"}, "a larger network than the one that is approved waits"
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.filter(target_property="ALLOWED_IPS").latest("pk")
    assert (event.actor_name, event.target_id, event.new) == ("policy", owned.stable_id, ["192.168.7.0/24"])


def test_a_new_policy_approves_what_waits_and_takes_nothing_away(tailnet: Tailnet) -> None:
    node = router(tailnet, None, ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", *EXIT], tags=["tag:gate"])
    with scope(tailnet=tailnet):
        decline_routes(node=node, prefixes=["10.2.0.0/16"], by=ME)
    assert approved_of(node) == set()
    rules(tailnet, tagOwners={"tag:gate": []}, autoApprovers=APPROVERS)
    granted = {"10.1.0.0/16", "10.3.0.0/16", *EXIT}
    assert approved_of(node) == granted, "what somebody has declined stays so"
    rules(tailnet, tagOwners={"tag:gate": []})
    assert approved_of(node) == granted
    with scope(tailnet=tailnet):
        set_route(node=node, prefix="10.3.0.0/16", approved=False, by=ME)
    rules(tailnet, tagOwners={"tag:gate": []}, autoApprovers=APPROVERS)
    assert approved_of(node) == granted - {"10.3.0.0/16"}


def test_a_new_policy_approves_by_the_tags_that_devices_have_when_it_is_saved(
    tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes the tag away after the text was checked, before it is in force."""
    rules(tailnet, tagOwners={"tag:gate": [], "tag:b": []})
    node = router(tailnet, None, ["10.1.0.0/16"], tags=["tag:gate"])
    check = policies.check_policy

    def checked_before_a_change(**given: Any) -> Checked:
        found = check(**given)
        set_tags(node=node, tags=["tag:b"], by=ME)
        return found

    monkeypatch.setattr(policies, "check_policy", checked_before_a_change)
    rules(tailnet, tagOwners={"tag:gate": [], "tag:b": []}, autoApprovers=APPROVERS)
    assert approved_of(node) == set()


def test_a_tag_brings_its_approvals_with_it(tailnet: Tailnet) -> None:
    rules(tailnet, tagOwners={"tag:gate": []}, autoApprovers=APPROVERS)
    node = router(tailnet, people.member(tailnet).user, ["10.1.0.0/16", *EXIT])
    assert approved_of(node) == set()
    set_tags(node=node, tags=["tag:gate"], by=ME)
    assert approved_of(node) == {"10.1.0.0/16", *EXIT}


def test_another_tailnets_devices_are_left_alone(tailnet: Tailnet) -> None:
    other, _ = people.tailnet("theirs")
    theirs = router(other, None, ["10.1.0.0/16"], tags=["tag:gate"])
    rules(tailnet, tagOwners={"tag:gate": []}, autoApprovers=APPROVERS)
    offer(theirs, "10.1.0.0/16", "10.2.0.0/16")
    assert approved_of(theirs) == set()


def test_who_was_suspended_gives_no_tags(tailnet: Tailnet) -> None:
    place = people.member(tailnet, Role.ADMIN)
    rules(tailnet, tagOwners={"tag:a": ["autogroup:member"]})
    with scope(tailnet=tailnet):
        Membership.objects.filter(pk=place.pk).update(status=Membership.Status.SUSPENDED)
    with pytest.raises(Forbidden):
        join(tailnet, place.user, "tag:a")


# --- which address a device gets -------------------------------------------------------------------------


def test_new_device_gets_an_address_of_its_pool(tailnet: Tailnet) -> None:
    ana, ben = (people.member(tailnet).user for _ in range(2))
    rules(
        tailnet,
        tagOwners={"tag:a": []},
        nodeAttrs=[
            {"target": [ana.email], "ipPool": ["100.90.0.0/30"]},
            {"target": ["tag:a"], "ipPool": ["100.91.0.0/24"]},
        ],
    )
    addresses = {machines.node(tailnet, ana).ipv4 for _ in range(4)}
    assert addresses == {"100.90.0.0", "100.90.0.1", "100.90.0.2", "100.90.0.3"}
    with pytest.raises(Conflict, match="extend its ipPool"):
        machines.node(tailnet, ana)
    assert machines.node(tailnet, None, tags=["tag:a"]).ipv4.startswith("100.91.0.")
    assert machines.node(tailnet, ben).ipv4 not in addresses


def test_full_pool_is_said_to_the_device(tailnet: Tailnet) -> None:
    rules(tailnet, nodeAttrs=[{"target": ["*"], "ipPool": ["100.90.0.7/32"]}])
    owner = people.member(tailnet).user
    key = create_auth_key(tailnet=tailnet, by=ME, user=owner, reusable=True).text
    answers = [
        answer_registration(request=RegistrationRequest(machine=machines.machine(), auth_key=key))
        for _ in range(2)
    ]
    assert [answer.outcome for answer in answers] == [Outcome.REGISTERED, Outcome.REFUSED]
    assert "the address pool" in answers[1].message
    with scope(tailnet=tailnet):
        assert [node.ipv4 for node in Node.objects.all()] == ["100.90.0.7"]


# --- who is in a group -----------------------------------------------------------------------------------


def test_who_leaves_a_group_loses_what_it_gave_at_once(tailnet: Tailnet) -> None:
    """With the very reading of the tailnet that the change makes workers do."""
    told, given = (people.member(tailnet) for _ in range(2))
    own = [machines.node(tailnet, place.user, preapproved=True) for place in (told, given)]
    db = machines.node(tailnet, tags=["tag:db"], preapproved=True)
    User.objects.filter(pk=told.user_id).update(groups=["group:ops"])
    set_groups(membership=given, groups=["group:ops"], by=ME)
    rule = {"action": "accept", "src": ["group:ops"], "dst": ["tag:db:22"]}
    rules(tailnet, tagOwners={"tag:db": []}, acls=[rule])

    def reach() -> list[bool]:
        snapshot = load_tailnet(tailnet.pk)
        assert snapshot is not None
        evaluation = Evaluation.of(snapshot.policy, snapshot)
        return [evaluation.sees(db.pk, node.pk) for node in own]

    assert reach() == [True, True]
    before = Tailnet.objects.get(pk=tailnet.pk).netmap_version
    set_groups(membership=given, groups=[], by=ME)
    assert Tailnet.objects.get(pk=tailnet.pk).netmap_version == before + 1
    assert reach() == [True, False]
    person = User.objects.get(pk=told.user_id)
    said = {"iss": person.iss, "sub": person.sub, "email": person.email, "name": "", "picture": ""}
    refresh_profile(user=person, identity=said | {"groups": []})
    assert Tailnet.objects.get(pk=tailnet.pk).netmap_version == before + 2
    assert reach() == [False, False]
