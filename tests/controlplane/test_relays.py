"""What the server keeps of its relays."""

from __future__ import annotations

import pytest

from controlplane.models import Relay
from controlplane.services.relays import (
    RelayIdentity,
    ensure_embedded_relay,
    record_disconnect,
    record_report,
)

pytestmark = pytest.mark.django_db


def test_the_end_of_an_older_link_leaves_the_newer_one_connected() -> None:
    relay = RelayIdentity(ensure_embedded_relay().pk, None)
    first, second = (record_report(relay=relay, report={"type": "hello"}) for _ in range(2))
    record_disconnect(relay=relay, since=first)
    assert Relay.objects.get(pk=relay.id).connected_at == second
    record_disconnect(relay=relay, since=second)
    assert Relay.objects.get(pk=relay.id).connected_at is None


def test_a_link_that_never_said_hello_ends_nothing() -> None:
    relay = RelayIdentity(ensure_embedded_relay().pk, None)
    record_report(relay=relay, report={"type": "hello"})
    record_disconnect(relay=relay, since=None)
    assert Relay.objects.get(pk=relay.id).connected_at is not None
