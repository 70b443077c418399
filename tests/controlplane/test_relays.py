"""What the server keeps of its relays."""

from __future__ import annotations

import dataclasses

import pytest

from controlplane.env import parse_environment
from controlplane.models import FIRST_OWN_REGION, Relay
from controlplane.services import relays
from controlplane.services.relays import (
    RelayIdentity,
    ensure_embedded_relay,
    record_disconnect,
    record_report,
)
from controlplane.snapshots import load_derp_map

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


def test_clients_are_told_the_port_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = RelayIdentity(ensure_embedded_relay().pk, None)
    hello = {"type": "hello", "derp_port": 3340, "stun_port": 3478}
    env = parse_environment({"TRENZA_RELAY_HOST": "relay.example.com:443", "TRENZA_RELAY_TLS": "off"})
    for told, port in ((env, 443), (dataclasses.replace(env, relay_port=None), 3340)):
        monkeypatch.setattr(relays, "environment", lambda told=told: told)
        record_report(relay=relay, report=hello)
        (node,) = load_derp_map(0).regions[FIRST_OWN_REGION].nodes
        assert (node.host_name, node.derp_port, node.stun_port) == ("relay.example.com", port, 3478)
