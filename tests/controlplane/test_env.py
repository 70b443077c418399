"""The environment: typed, defaulted, and refused in one line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controlplane.env import EnvironmentProblem, HostPort, parse_environment

GOOGLE = {"TRENZA_GOOGLE_CLIENT_ID": "trenza", "TRENZA_GOOGLE_CLIENT_SECRET": "secret"}
OIDC = {
    "TRENZA_URL": "https://vpn.example.com",
    "TRENZA_OIDC_ISSUER": "https://id.example.com",
    "TRENZA_OIDC_CLIENT_ID": "trenza",
    "TRENZA_OIDC_CLIENT_SECRET": "secret",
}


def test_defaults_serve_on_loopback() -> None:
    env = parse_environment({})
    assert env.url == "http://127.0.0.1:8080"
    assert env.listen == HostPort("127.0.0.1", 8080)
    assert env.relay_host == "127.0.0.1"
    assert not env.secure
    assert not env.scaled


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"TRENZA_URL": "vpn.example.com"}, "TRENZA_URL"),
        ({"TRENZA_URL": "https://vpn.example.com/path"}, "TRENZA_URL"),
        ({"TRENZA_LISTEN": "8080"}, "TRENZA_LISTEN"),
        ({"TRENZA_LISTEN": "127.0.0.1:99999"}, "TRENZA_LISTEN"),
        ({"TRENZA_RELAY_TLS": "maybe"}, "TRENZA_RELAY_TLS"),
        ({"TRENZA_RELAY_HOST": "relay.example.com:https"}, "TRENZA_RELAY_HOST"),
        ({"TRENZA_RELAY_HOST": "relay.example.com:0"}, "TRENZA_RELAY_HOST"),
        ({"TRENZA_RELAY_HOST": ":443"}, "TRENZA_RELAY_HOST"),
        ({"TRENZA_TLS_CERT": "/x"}, "TRENZA_TLS_KEY"),
        ({"TRENZA_TRUSTED_PROXIES": "proxy.local"}, "TRENZA_TRUSTED_PROXIES"),
        ({"TRENZA_URL": "https://a.tailnet.internal"}, "TRENZA_BASE_DOMAIN"),
        ({"TRENZA_GOOGLE_CLIENT_ID": "x"}, "TRENZA_GOOGLE_CLIENT_SECRET"),
        ({"TRENZA_OIDC_ISSUER": "https://id.example.com"}, "TRENZA_OIDC_CLIENT_ID"),
        (OIDC | {"TRENZA_OIDC_ISSUER": "id.example.com"}, "TRENZA_OIDC_ISSUER"),
        (OIDC | {"TRENZA_OIDC_ISSUER": "http://id.example.com"}, "TRENZA_OIDC_ISSUER"),
        (OIDC | {"TRENZA_GOOGLE_ISSUER": "http://id.example.com"}, "TRENZA_GOOGLE_ISSUER"),
        (OIDC | GOOGLE | {"TRENZA_OIDC_ISSUER": "https://accounts.google.com"}, "stands for already"),
        (OIDC | GOOGLE | {"TRENZA_GOOGLE_ISSUER": "https://ID.example.com/"}, "stands for already"),
    ],
)
def test_a_wrong_setting_is_named(variables: dict[str, str], word: str) -> None:
    with pytest.raises(EnvironmentProblem, match=word):
        parse_environment(variables)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("relay.example.com", "relay.example.com", None),
        ("relay.example.com:443", "relay.example.com", 443),
        ("192.0.2.1:8443", "192.0.2.1", 8443),
        ("2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_the_relays_public_address(text: str, host: str, port: int | None) -> None:
    env = parse_environment({"TRENZA_RELAY_HOST": text})
    assert (env.relay_host, env.relay_port) == (host, port)


@pytest.mark.parametrize(
    ("url", "issuer"),
    [
        ("https://vpn.example.com", "https://id.example.com/realms/main"),
        ("https://vpn.example.com", "http://127.0.0.1:9000"),
        ("http://10.77.0.1:8080", "http://10.77.0.9:9000"),
    ],
)
def test_a_plain_issuer_is_this_hosts_own_or_beside_a_plain_panel(url: str, issuer: str) -> None:
    env = parse_environment(OIDC | {"TRENZA_URL": url, "TRENZA_OIDC_ISSUER": issuer})
    assert env.oidc_issuer == issuer


def test_domains_that_may_sign_in() -> None:
    env = parse_environment({"TRENZA_GOOGLE_DOMAINS": "Example.com, example.org,"})
    assert env.google_domains == ("example.com", "example.org")


def test_ipv6_listen_round_trips() -> None:
    assert str(HostPort.parse("[::1]:8080", "X")) == "[::1]:8080"


def test_secret_key_is_made_once_and_private(tmp_path: Path) -> None:
    first = parse_environment({"TRENZA_DATA": str(tmp_path)}).secret_key
    assert parse_environment({"TRENZA_DATA": str(tmp_path)}).secret_key == first
    assert len(first) >= 50
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600


def test_secrets_stay_out_of_the_repr() -> None:
    env = parse_environment({"TRENZA_SECRET_KEY": "canary-1", "DATABASE_URL": "postgres://u:canary-2@h/d"})
    assert "canary" not in repr(env)
