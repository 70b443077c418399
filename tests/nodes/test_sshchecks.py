"""SSH sessions that wait for a sign-in: asked, answered by the right person, remembered, forgotten."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from django.utils import timezone

from accounts.errors import Conflict, Gone, NotFound
from accounts.models import AuditEvent, Tailnet, User
from accounts.tenancy import scope
from nodes.models import Node, SSHCheck
from nodes.services.sshchecks import (
    KEPT,
    LIFETIME,
    MAX_OPEN,
    Answer,
    answer_of,
    begin_check,
    find_check,
    let_in,
    own_check,
    turn_away,
    was_let_in,
)
from nodes.tasks import forget_ssh_checks
from tests.accounts import factories
from tests.nodes import factories as machines

pytestmark = pytest.mark.django_db
NOW = datetime.fromisoformat("2026-03-04T12:00:00Z")
SOON = NOW + timedelta(minutes=1)


class Place(NamedTuple):
    """A person's laptop, and the server that they want to get into."""

    tailnet: Tailnet
    person: User
    laptop: Node
    server: Node


@pytest.fixture
def place() -> Place:
    tailnet, owner = factories.tailnet()
    laptop = machines.node(tailnet, owner, hostname="laptop")
    return Place(tailnet, owner, laptop, machines.node(tailnet, None, hostname="server", tags=["tag:web"]))


def begin(place: Place, user: str = "root", now: datetime = NOW) -> tuple[str, SSHCheck]:
    new = begin_check(source=place.laptop, target=place.server, local_user=user, now=now)
    return new.token, new.check


def seen(place: Place, token: str, user: str = "root", now: datetime = SOON) -> Answer:
    """What the server's client is told of a check."""
    with scope(tailnet=place.tailnet):
        check = find_check(token=token, source=place.laptop, target=place.server, local_user=user, now=now)
        return answer_of(check)


def remembered(place: Place, since: datetime = NOW) -> bool:
    with scope(tailnet=place.tailnet):
        return was_let_in(source=place.laptop, target=place.server, since=since)


def test_session_waits_until_its_person_has_signed_in_and_said_yes(place: Place) -> None:
    token, _ = begin(place)
    assert seen(place, token) is Answer.WAITS
    assert not remembered(place)
    let_in(check=own_check(token=token, user=place.person, now=SOON), signed_in_at=SOON, now=SOON)
    assert seen(place, token) is Answer.LET_IN
    with scope(tailnet=place.tailnet):
        event = AuditEvent.objects.get(target_property="SSH_SESSION")
    assert (event.action, event.actor_name, event.target_name) == ("ALLOW", place.person.email, "server")
    assert event.new == {"from": "laptop", "user": "root"}


def test_sign_in_from_before_the_question_lets_nobody_in(place: Place) -> None:
    token, _ = begin(place)
    check = own_check(token=token, user=place.person, now=SOON)
    with pytest.raises(Conflict, match="sign in again"):
        let_in(check=check, signed_in_at=NOW - timedelta(seconds=1), now=SOON)
    assert seen(place, token) is Answer.WAITS


def test_turned_away_session_hears_it_and_is_not_remembered(place: Place) -> None:
    token, _ = begin(place)
    turn_away(check=own_check(token=token, user=place.person, now=SOON), now=SOON)
    assert seen(place, token) is Answer.TURNED_AWAY
    assert not remembered(place)
    with scope(tailnet=place.tailnet):
        assert AuditEvent.objects.get(target_property="SSH_SESSION").action == "REFUSE"


def test_answer_counts_once(place: Place) -> None:
    token, _ = begin(place)
    check = own_check(token=token, user=place.person, now=SOON)
    turn_away(check=check, now=SOON)
    with pytest.raises(Gone):
        let_in(check=check, signed_in_at=SOON, now=SOON)
    with pytest.raises(Gone):
        own_check(token=token, user=place.person, now=SOON)


def test_link_is_for_its_person_alone_and_runs_out(place: Place) -> None:
    token, _ = begin(place)
    other = factories.member(place.tailnet).user
    with pytest.raises(NotFound):
        own_check(token=token, user=other, now=SOON)
    with pytest.raises(Gone):
        own_check(token=token, user=place.person, now=NOW + LIFETIME)
    with pytest.raises(Gone):
        own_check(token="unknown", user=place.person, now=SOON)
    with pytest.raises(Gone):
        seen(place, token, now=NOW + LIFETIME)


def test_check_is_of_its_pair_its_user_and_its_person(place: Place) -> None:
    token, _ = begin(place)
    with pytest.raises(Gone):
        seen(place, token, user="deploy")
    other = machines.node(place.tailnet, place.person, hostname="other")
    with pytest.raises(Gone):
        seen(place._replace(laptop=other), token)
    place.laptop.user = factories.member(place.tailnet).user
    with pytest.raises(Gone):
        seen(place, token)


def test_sign_in_is_remembered_for_the_pair_and_the_person(place: Place) -> None:
    token, _ = begin(place)
    let_in(check=own_check(token=token, user=place.person, now=SOON), signed_in_at=SOON, now=SOON)
    assert remembered(place, since=SOON)
    assert not remembered(place, since=SOON + timedelta(seconds=1))
    other = machines.node(place.tailnet, place.person, hostname="other")
    assert not remembered(place._replace(laptop=other))
    assert not remembered(place._replace(server=other))
    place.laptop.user = factories.member(place.tailnet).user
    assert not remembered(place)


def test_nobody_is_asked_for_a_tagged_device(place: Place) -> None:
    with pytest.raises(Conflict, match="tagged"):
        begin_check(source=place.server, target=place.laptop, local_user="root", now=NOW)


def test_only_so_many_questions_of_a_pair_are_open(place: Place) -> None:
    tokens = [begin(place)[0] for _ in range(MAX_OPEN + 1)]
    with pytest.raises(Gone):
        seen(place, tokens[0])
    assert all(seen(place, token) is Answer.WAITS for token in tokens[1:])


def test_old_checks_are_forgotten() -> None:
    tailnet, owner = factories.tailnet()
    laptop = machines.node(tailnet, owner, hostname="laptop")
    server = machines.node(tailnet, owner, hostname="server")
    now = timezone.now()
    begin_check(source=laptop, target=server, local_user="root", now=now - KEPT - timedelta(seconds=1))
    kept = begin_check(source=laptop, target=server, local_user="root", now=now - timedelta(days=7))
    assert forget_ssh_checks() == 1
    with scope(tailnet=tailnet):
        assert [check.pk for check in SSHCheck.objects.all()] == [kept.check.pk]
