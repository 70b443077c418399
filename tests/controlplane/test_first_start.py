"""What a start prints: the owner's one-time link, until the owner has another way in."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from allauth.socialaccount.models import SocialAccount
from django.core.management import call_command

from accounts.models import User
from controlplane.env import Environment, environment
from controlplane.management.commands import firststart

pytestmark = pytest.mark.django_db


def printed() -> str:
    out = StringIO()
    call_command("firststart", stdout=out)
    return out.getvalue()


@pytest.fixture
def with_google(monkeypatch: pytest.MonkeyPatch) -> None:
    def there() -> Environment:
        return replace(environment(), google_client_id="id")

    monkeypatch.setattr(firststart, "environment", there)


def test_every_start_prints_a_link() -> None:
    first, second = printed(), printed()
    assert "/sign-in/link/" in first
    assert "/sign-in/link/" in second
    assert first != second


@pytest.mark.usefixtures("with_google")
def test_with_google_the_owner_gets_a_link_until_they_have_added_it() -> None:
    assert "/sign-in/link/" in printed()
    SocialAccount.objects.create(user=User.objects.get(), provider="google", uid="1")
    assert printed().strip().endswith("/sign-in")
