"""The small parent: ports, tokens, and no Django inside."""

from __future__ import annotations

import dataclasses
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.env import EnvironmentProblem, HostPort, parse_environment
from controlplane.supervisor import (
    Supervisor,
    bind_web_socket,
    control_url_for_relay,
    relay_addresses,
    relay_token,
)


def test_the_parent_loads_no_django() -> None:
    code = "import controlplane.supervisor, sys; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match="TRENZA_LISTEN"):
            bind_web_socket(HostPort("127.0.0.1", port))


def test_relay_ports_are_kept(tmp_path: Path) -> None:
    env = parse_environment({"TRENZA_DATA": str(tmp_path)})
    first = relay_addresses(env)
    assert relay_addresses(env) == first
    assert first[0].host == "127.0.0.1"


def test_relay_ports_as_set_win(tmp_path: Path) -> None:
    env = parse_environment({"TRENZA_DATA": str(tmp_path), "TRENZA_RELAY_LISTEN": "127.0.0.1:4443"})
    assert relay_addresses(env)[0] == HostPort("127.0.0.1", 4443)


def test_relay_token_is_private_and_kept(tmp_path: Path) -> None:
    env = parse_environment({"TRENZA_DATA": str(tmp_path)})
    assert relay_token(env) == relay_token(env)
    assert stat.S_IMODE((tmp_path / "relay.token").stat().st_mode) == 0o600


def test_the_relay_finds_the_server_by_loopback() -> None:
    env = parse_environment({"TRENZA_LISTEN": "0.0.0.0:8080", "TRENZA_URL": "http://10.77.0.1:8080"})
    assert control_url_for_relay(env) == "http://127.0.0.1:8080"
    secure = dataclasses.replace(env, url="https://v.example", tls_cert=Path("c"), tls_key=Path("k"))
    assert control_url_for_relay(secure) == "https://v.example"


def test_the_relay_is_given_no_password_of_the_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "TRENZA_SECRET_KEY"):
        monkeypatch.setenv(name, "canary")
    supervisor = Supervisor(
        parse_environment({"TRENZA_DATA": str(tmp_path), "TRENZA_LISTEN": "127.0.0.1:0"}), workers=1
    )
    with supervisor.sock:
        assert "canary" not in supervisor._relay_environment().values()
