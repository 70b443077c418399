"""What the embedded relay is given: addresses and a token that it keeps, and an environment of its own."""

from __future__ import annotations

import json
import os
import secrets
import socket
from pathlib import Path

from controlplane.env import CHECKOUT, DEFAULT_RELAY_PORT, DEFAULT_STUN_PORT, Environment, HostPort


def relay_environment(env: Environment) -> dict[str, str]:
    """The relay's environment: its own settings, and none of the server's."""
    derp, stun = relay_addresses(env)
    return {
        **{name: value for name, value in os.environ.items() if not _is_ours(name)},
        "TRENZA_RELAY_LISTEN": str(derp),
        "TRENZA_RELAY_STUN": str(stun),
        "TRENZA_RELAY_HOSTS": env.relay_host,
        "TRENZA_RELAY_TOKEN": relay_token(env),
        "TRENZA_RELAY_METRICS_TOKEN": env.metrics_token or "",
        "TRENZA_RELAY_TLS": "on" if env.relay_tls else "off",
        "TRENZA_RELAY_DATA": str(env.data),
        "TRENZA_RELAY_CONTROL_URL": control_url_for_relay(env),
        "PYTHONPATH": str(CHECKOUT),
    }


def _is_ours(name: str) -> bool:
    """Whether a variable is the server's: the relay gets its own, and no password of database or Redis."""
    return name.startswith("TRENZA_") or name in ("DATABASE_URL", "REDIS_URL")


def relay_addresses(env: Environment) -> tuple[HostPort, HostPort]:
    """Where the embedded relay listens (DERP, STUN): as set, else the usual ports, else free ones, kept."""
    kept_file = env.data / "relay.ports"
    try:
        kept = json.loads(kept_file.read_text())
    except (FileNotFoundError, ValueError):
        kept = {}
    host = env.listen.host

    def choose(name: str, default: int, kind: socket.SocketKind) -> HostPort:
        port = kept.get(name)
        if not isinstance(port, int):
            port = default if _is_free(host, default, kind) else _free_port(host, kind)
            kept[name] = port
        return HostPort(host, port)

    derp = env.relay_listen or choose("derp", DEFAULT_RELAY_PORT, socket.SOCK_STREAM)
    stun = env.relay_stun or choose("stun", DEFAULT_STUN_PORT, socket.SOCK_DGRAM)
    _write_private(kept_file, json.dumps(kept))
    return derp, stun


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def relay_token(env: Environment) -> str:
    """The embedded relay's bearer token: as set, else kept in DATA (0600), made at the first start."""
    path = env.data / "relay.token"
    if env.relay_token:
        return env.relay_token
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        _write_private(path, token := secrets.token_urlsafe(32))
        return token


def control_url_for_relay(env: Environment) -> str:
    """How the embedded relay reaches this server: by loopback where it can, else by the public URL."""
    if env.tls_cert:
        return env.url
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(env.listen.host, env.listen.host)  # noqa: S104
    return f"http://{HostPort(host, env.listen.port)}"


def _is_free(host: str, port: int, kind: socket.SocketKind) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _free_port(host: str, kind: socket.SocketKind) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
