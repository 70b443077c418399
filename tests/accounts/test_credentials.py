"""Links, tokens and clients: hashed, shown once, checked at use."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.actors import Actor
from accounts.credentials import ALPHABET, digest, new_secret, new_stable_id
from accounts.errors import Conflict, Gone, Invalid
from accounts.models import ApiToken, AuditEvent, SignInLink
from accounts.services import people, tokens
from accounts.services.people import add_member
from accounts.services.signinlink import clean_links, create_link, use_link
from accounts.tenancy import scope
from tests.accounts import factories

pytestmark = pytest.mark.django_db
ME = Actor.command()


def test_a_secret_is_long_and_its_repr_does_not_tell() -> None:
    secret = new_secret("tskey-auth-")
    prefix, kind, public_id, rest = secret.text.split("-")
    assert (prefix, kind, public_id) == ("tskey", "auth", secret.public_id)
    assert len(rest) == 32
    assert set(rest) <= set(ALPHABET)
    assert secret.digest == digest(secret.text)
    assert rest not in repr(secret)
    assert secret.digest not in repr(secret)
    assert new_stable_id() != new_stable_id()


def test_a_link_signs_in_once() -> None:
    tailnet, owner = factories.tailnet()
    link = create_link(user=owner, tailnet=tailnet)
    signed_in = use_link(token=link.token)
    assert (signed_in.user, signed_in.tailnet) == (owner, tailnet)
    with pytest.raises(Gone):
        use_link(token=link.token)


def test_a_link_lives_15_minutes() -> None:
    now = timezone.now()
    link = create_link(user=factories.person(), now=now)
    assert link.expires == now + timedelta(minutes=15)
    with pytest.raises(Gone):
        use_link(token=link.token, now=link.expires)
    assert use_link(token=link.token, now=link.expires - timedelta(seconds=1))


def test_a_link_of_nobody_or_of_someone_switched_off_is_gone() -> None:
    with pytest.raises(Gone):
        use_link(token="unknown")
    user = factories.person()
    link = create_link(user=user)
    user.is_active = False
    user.save()
    with pytest.raises(Gone):
        use_link(token=link.token)


def test_links_are_stored_as_digests_and_cleaned() -> None:
    link = create_link(user=factories.person())
    assert link.token not in str(SignInLink.objects.values())
    assert link.token not in repr(link)
    assert clean_links() == 0
    assert clean_links(now=timezone.now() + timedelta(days=2)) == 1


def test_a_token_acts_while_all_that_it_stands_on_holds() -> None:
    tailnet, _owner = factories.tailnet()
    member = factories.member(tailnet)
    made = tokens.create_api_token(
        tailnet=tailnet, user=member.user, by=Actor.person(member.user), scopes=["devices:core"]
    )
    proven = tokens.authenticate_token(text=made.text)
    assert proven is not None
    found = proven.token
    assert proven.place == member
    assert (found.tailnet, found.user, found.scopes) == (tailnet, member.user, ["devices:core"])
    assert tokens.authenticate_token(text=made.text + "x") is None
    assert tokens.authenticate_token(text=made.text, now=timezone.now() + timedelta(days=91)) is None
    people.suspend_member(membership=member, by=ME)
    assert tokens.authenticate_token(text=made.text) is None
    people.restore_member(membership=member, by=ME)
    assert tokens.authenticate_token(text=made.text) is not None
    tokens.revoke_api_token(token=found, by=ME)
    assert tokens.authenticate_token(text=made.text) is None


def test_a_token_s_text_is_nowhere() -> None:
    tailnet, owner = factories.tailnet()
    made = tokens.create_api_token(tailnet=tailnet, user=owner, by=ME)
    assert made.text not in repr(made)
    with scope(tailnet=tailnet):
        assert made.text not in str(ApiToken.objects.values())


def test_scopes_are_checked() -> None:
    tailnet, owner = factories.tailnet()
    for scopes in ([], ["everything"], ["devices:core:write"]):
        with pytest.raises(Invalid):
            tokens.create_api_token(tailnet=tailnet, user=owner, by=ME, scopes=scopes)
    with pytest.raises(Invalid):
        tokens.create_api_token(tailnet=tailnet, user=factories.person(), by=ME)


def test_an_oauth_client_gets_tokens_for_an_hour() -> None:
    tailnet, _ = factories.tailnet()
    client = tokens.create_oauth_client(tailnet=tailnet, by=ME, scopes=["dns"], tags=["tag:ci"])
    assert client.text.startswith("tskey-client-")
    made = tokens.issue_access_token(client_secret=client.text)
    proven = tokens.authenticate_token(text=made.text)
    assert proven is not None
    assert proven.place is None
    token = proven.token
    assert (token.scopes, token.tags, token.user) == (["dns"], ["tag:ci"], None)
    assert tokens.authenticate_token(text=made.text, now=timezone.now() + timedelta(minutes=61)) is None
    tokens.revoke_oauth_client(client=client.client, by=ME)
    assert tokens.authenticate_token(text=made.text) is None
    with pytest.raises(Conflict):
        tokens.issue_access_token(client_secret=client.text)


def test_a_link_and_its_use_are_in_the_log_of_each_of_the_persons_tailnets() -> None:
    tailnet, owner = factories.tailnet()
    second, _ = factories.tailnet()
    foreign, _ = factories.tailnet()
    add_member(tailnet=second, user=owner, by=Actor.command())
    use_link(token=create_link(user=owner, tailnet=tailnet).token)
    for one, seen in ((tailnet, True), (second, True), (foreign, False)):
        with scope(tailnet=one):
            events = AuditEvent.objects.filter(action__in=["CREATE_SIGN_IN_LINK", "LOGIN"]).order_by("pk")
            found = [(event.action, event.actor_name, event.target_name) for event in events]
        made = ("CREATE_SIGN_IN_LINK", "manage.py", owner.login_name)
        assert found == ([made, ("LOGIN", owner.login_name, owner.login_name)] if seen else [])
