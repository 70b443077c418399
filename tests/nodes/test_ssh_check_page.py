"""``/ssh-check/TOKEN``: a person sees which session wants in, signs in anew, and lets it in or not."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Tailnet, User
from accounts.services.sessions import SIGNED_IN_KEY
from accounts.services.signinlink import create_link
from accounts.tenancy import scope
from nodes.models import SSHCheck
from nodes.services.sshchecks import Answer, answer_of, begin_check
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def ask(tailnet: Tailnet, person: User) -> tuple[str, int]:
    """A session waits: its page's path, and its check."""
    laptop = machines.node(tailnet, person, hostname="laptop")
    server = machines.node(tailnet, None, hostname="backup", tags=["tag:web"])
    new = begin_check(source=laptop, target=server, local_user="deploy")
    return f"/ssh-check/{new.token}", new.check.pk


def answer(tailnet: Tailnet, check_id: int) -> Answer:
    with scope(tailnet=tailnet):
        return answer_of(SSHCheck.objects.get(pk=check_id))


def stale(person: User) -> Visitor:
    """A browser in which the person signed in an hour ago."""
    visitor = Visitor(person)
    session = visitor.session
    session[SIGNED_IN_KEY] = (timezone.now() - timedelta(hours=1)).timestamp()
    session.save()
    return visitor


def buttons(page: str) -> set[str]:
    return set(re.findall(r'name="answer" value="(\w+)"', page))


def test_stranger_signs_in_first_and_others_find_nothing(place: tuple[Tailnet, User]) -> None:
    path, check_id = ask(*place)
    assert Visitor().get(path)["Location"].startswith("/sign-in?next=%2Fssh-check%2F")
    other = Visitor.of(factories.member(place[0], "admin"))
    assert other.get(path).status_code == 404
    assert other.submit(path, answer="allow").status_code == 404
    assert answer(place[0], check_id) is Answer.WAITS


def test_page_says_which_session_it_is(place: tuple[Tailnet, User]) -> None:
    path, check_id = ask(*place)
    page = Visitor(place[1]).get(path).content.decode()
    for shown in ("laptop", "backup", "deploy", place[0].title, place[1].email):
        assert shown in page, shown
    assert answer(place[0], check_id) is Answer.WAITS


def test_fresh_sign_in_lets_the_session_in(place: tuple[Tailnet, User]) -> None:
    path, check_id = ask(*place)
    visitor = Visitor(place[1])
    assert buttons(visitor.get(path).content.decode()) == {"allow", "refuse"}
    assert visitor.submit(path, answer="allow").status_code == 200
    assert answer(place[0], check_id) is Answer.LET_IN
    assert visitor.get(path).status_code == 410


def test_older_sign_in_has_to_be_repeated(place: tuple[Tailnet, User]) -> None:
    tailnet, person = place
    path, check_id = ask(tailnet, person)
    visitor = stale(person)
    assert buttons(visitor.get(path).content.decode()) == {"again", "refuse"}
    assert visitor.submit(path, answer="allow").status_code == 409
    assert answer(tailnet, check_id) is Answer.WAITS
    sent = visitor.submit(path, answer="again")
    assert sent["Location"].startswith("/sign-in?next=%2Fssh-check%2F")
    assert visitor.get(path)["Location"].startswith("/sign-in")
    visitor.get(sent["Location"])
    link = create_link(user=person)
    assert visitor.get(f"/sign-in/link/{link.token}")["Location"] == path
    assert buttons(visitor.get(path).content.decode()) == {"allow", "refuse"}
    assert visitor.submit(path, answer="allow").status_code == 200
    assert answer(tailnet, check_id) is Answer.LET_IN


def test_session_that_nobody_started_is_turned_away(place: tuple[Tailnet, User]) -> None:
    path, check_id = ask(*place)
    assert stale(place[1]).submit(path, answer="refuse").status_code == 200
    assert answer(place[0], check_id) is Answer.TURNED_AWAY


def test_form_without_its_token_changes_nothing(place: tuple[Tailnet, User]) -> None:
    path, check_id = ask(*place)
    visitor = Visitor(place[1], enforce_csrf_checks=True)
    assert visitor.submit(path, answer="allow").status_code == 403
    assert answer(place[0], check_id) is Answer.WAITS
