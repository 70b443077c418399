"""Settings: what is read, what is refused, and that secrets do not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config import (
    DEFAULT_BURST_BYTES,
    MIN_BURST_BYTES,
    ConfigProblem,
    Endpoint,
    parse_config,
    read_config_file,
)

OPEN = {"TRENZA_RELAY_ADMISSION": "open"}


def test_defaults() -> None:
    config = parse_config(
        {"TRENZA_RELAY_CONTROL_URL": "https://vpn.example/", "TRENZA_RELAY_TOKEN": "secret"}
    )
    assert (config.listen, config.stun) == (Endpoint("0.0.0.0", 443), Endpoint("0.0.0.0", 3478))
    assert (config.control_url, config.token) == ("https://vpn.example", "secret")
    assert config.tls
    assert not config.open_admission
    assert (config.client_rate, config.client_burst) == (0, DEFAULT_BURST_BYTES)
    assert "secret" not in repr(config)


def test_hosts_and_mesh() -> None:
    config = parse_config(
        {
            **OPEN,
            "TRENZA_RELAY_HOSTS": "a.example, 192.0.2.1",
            "TRENZA_RELAY_MESH_KEY": "0f" * 32,
            "TRENZA_RELAY_MESH_WITH": "b.example https://c.example:8443",
            "TRENZA_RELAY_STUN": "off",
            "TRENZA_RELAY_CLIENT_BURST": "1",
        }
    )
    assert config.hosts == ("a.example", "192.0.2.1")
    assert config.mesh_with == ("b.example", "https://c.example:8443")
    assert config.stun is None
    assert config.client_burst == MIN_BURST_BYTES
    assert "0f0f" not in repr(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"ADMISSION": "closed"},
        {"TLS": "maybe"},
        {"LISTEN": "1.2.3.4"},
        {"LISTEN": "1.2.3.4:99999"},
        {"LISTEN": "1.2.3.4:²"},
        {"CLIENT_RATE": "fast"},
        {"CLIENT_RATE": "-1"},
        {"TLS_CERT": "only one"},
        {"CONTROL_URL": "vpn.example"},
        {"CONTROL_URL": "http://"},
        {"MESH_KEY": "short"},
        {"MESH_WITH": "b.example"},
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, str]) -> None:
    variables = {**OPEN, **{f"TRENZA_RELAY_{name}": value for name, value in changes.items()}}
    with pytest.raises(ConfigProblem, match="TRENZA_RELAY_"):
        parse_config(variables)


def test_a_relay_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="TRENZA_RELAY_ADMISSION=open"):
        parse_config({})


def test_a_file_names_its_bad_line(tmp_path: Path) -> None:
    file = tmp_path / "relay.env"
    file.write_text("# fine\nTRENZA_RELAY_TLS = off\nTRENZA_URL=http://x\n")
    with pytest.raises(ConfigProblem, match=r"relay\.env:3"):
        read_config_file(file)
    file.write_text('# fine\nTRENZA_RELAY_TLS = "off"\n')
    assert read_config_file(file) == {"TRENZA_RELAY_TLS": "off"}
