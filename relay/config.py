"""The relay's settings (``TRENZA_RELAY_*``), read once and typed: from the environment or from a file.

==================  ====================  ===================================================================
LISTEN              0.0.0.0:443           DERP, over TLS (``[::]:443``: both families)
STUN                0.0.0.0:3478          STUN over UDP; ``off``
DATA                /var/lib/trenza-relay the relay's key, certificate, last list of served keys (private)
HOSTS                                     names and addresses that the self-signed certificate bears
TLS                 on                    ``off``: plain, behind a TLS proxy
TLS_CERT, TLS_KEY                         a certificate of an authority instead of the self-signed one
CONTROL_URL, TOKEN                        the server that names the served keys, and this relay's token there
ADMISSION           control               ``open``: serve everybody, without a server
CLIENT_RATE         0                     bytes a second of each client; 0: unlimited
CLIENT_BURST        262272                bytes that a client may send at once when CLIENT_RATE is set
METRICS_TOKEN                             whose bearer reads /metrics; without one only this host does
MESH_KEY                                  64 hex digits, the same on all relays of one region
MESH_WITH                                 the other relays of the region (``https://HOST[:PORT]``)
==================  ====================  ===================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PREFIX = "TRENZA_RELAY_"
DEFAULT_LISTEN = "0.0.0.0:443"
DEFAULT_STUN = "0.0.0.0:3478"
DEFAULT_DATA = "/var/lib/trenza-relay"
DEFAULT_BURST_BYTES = 262_272
MIN_BURST_BYTES = 65_568  # one whole packet must always fit
MESH_KEY_PATTERN = re.compile(r"[0-9a-f]{64}")


class ConfigProblem(Exception):
    """A setting that cannot be used; the message says which and what to write."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (literal address or name) and a port; port 0 = any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, name: str) -> Endpoint:
        host, colon, port = text.rpartition(":")
        host = host.strip("[]")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ConfigProblem(f"{name}={text!r} is not HOST:PORT; write for example 0.0.0.0:443")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How this relay runs. Rates are bytes a second, 0 = unlimited."""

    listen: Endpoint
    stun: Endpoint | None
    data: Path
    hosts: tuple[str, ...] = ()
    tls: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    control_url: str = ""
    token: str = field(default="", repr=False)
    open_admission: bool = False
    client_rate: int = 0
    client_burst: int = DEFAULT_BURST_BYTES
    metrics_token: str = field(default="", repr=False)
    mesh_key: str = field(default="", repr=False)
    mesh_with: tuple[str, ...] = ()


def read_config_file(path: Path) -> dict[str, str]:
    """A file of ``NAME=value`` lines, ``#`` comments and blank lines; raises :class:`ConfigProblem`."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigProblem(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    variables = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip().startswith(PREFIX):
            raise ConfigProblem(f"{path}:{number}: not a line of the form {PREFIX}NAME=value")
        variables[name.strip()] = value.strip().strip("\"'")
    return variables


def parse_config(variables: Mapping[str, str]) -> Config:
    """Raises :class:`ConfigProblem`."""

    def get(name: str, default: str = "") -> str:
        return variables.get(f"{PREFIX}{name}") or default

    def path(name: str) -> Path | None:
        return Path(get(name)) if get(name) else None

    stun, burst = get("STUN", DEFAULT_STUN), get("CLIENT_BURST", str(DEFAULT_BURST_BYTES))
    config = Config(
        listen=Endpoint.parse(get("LISTEN", DEFAULT_LISTEN), "TRENZA_RELAY_LISTEN"),
        stun=None if stun == "off" else Endpoint.parse(stun, "TRENZA_RELAY_STUN"),
        data=Path(get("DATA", DEFAULT_DATA)).absolute(),
        hosts=_words(get("HOSTS")),
        tls=_choice(get("TLS", "on"), "TRENZA_RELAY_TLS", ("off", "on")) == "on",
        tls_cert=path("TLS_CERT"),
        tls_key=path("TLS_KEY"),
        control_url=get("CONTROL_URL").rstrip("/"),
        token=get("TOKEN"),
        open_admission=_choice(get("ADMISSION", "control"), "TRENZA_RELAY_ADMISSION", ("control", "open"))
        == "open",
        client_rate=_whole(get("CLIENT_RATE", "0"), "TRENZA_RELAY_CLIENT_RATE"),
        client_burst=max(MIN_BURST_BYTES, _whole(burst, "TRENZA_RELAY_CLIENT_BURST")),
        metrics_token=get("METRICS_TOKEN"),
        mesh_key=get("MESH_KEY"),
        mesh_with=_words(get("MESH_WITH")),
    )
    _check(config)
    return config


def _check(config: Config) -> None:
    """What settings must say together."""
    if config.control_url:
        url = urlsplit(config.control_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigProblem(
                f"TRENZA_RELAY_CONTROL_URL={config.control_url!r} is not a server's URL; write for example "
                "https://vpn.example.com"
            )
    if not config.open_admission and not (config.control_url and config.token):
        raise ConfigProblem(
            "a relay admits only the keys that its server names: set TRENZA_RELAY_CONTROL_URL and "
            "TRENZA_RELAY_TOKEN (or TRENZA_RELAY_ADMISSION=open for a relay that serves everybody)"
        )
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ConfigProblem("TRENZA_RELAY_TLS_CERT and TRENZA_RELAY_TLS_KEY go together; set both or neither")
    if config.mesh_key and not MESH_KEY_PATTERN.fullmatch(config.mesh_key):
        raise ConfigProblem(
            "TRENZA_RELAY_MESH_KEY is not 64 lowercase hex digits; make one: openssl rand -hex 32"
        )
    if config.mesh_with and not config.mesh_key:
        raise ConfigProblem(
            "TRENZA_RELAY_MESH_WITH needs TRENZA_RELAY_MESH_KEY, the same on every relay of the mesh"
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigProblem(f"{name}={text!r} is not a whole number of bytes")
    return int(text)


def _choice(text: str, name: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ConfigProblem(f"{name}={text!r} is none of {', '.join(choices)}")
    return text
