"""``trenza ssh``: the system's ssh to a device of the tailnet.

Its name is found in the network map, whatever this host's DNS knows; its host keys are those it told there.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from client.cli.common import daemon
from client.cli.ip import find
from client.errors import ClientError, PeerNotFound
from client.localapi.client import DEFAULT_SOCKET

KNOWN_HOSTS = "ssh_known_hosts"
MAX_KEY_LENGTH = 16 * 1024
PLAIN_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class NoSSH(ClientError):
    """The system's ssh cannot be started."""

    code = "no-ssh"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("destination", metavar="[USER@]HOST")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def ssh(context: click.Context, destination: str, arguments: tuple[str, ...]) -> None:
    """Open an SSH session to HOST (name or address of a device); ARGUMENTS go to ssh."""
    local = daemon(context)
    status = local.get("status")
    user, _, host = destination.rpartition("@")
    peer = find(status, host.strip("[]"))
    if peer is status["Self"]:
        raise PeerNotFound(f"{host!r} is this machine")
    program = shutil.which("ssh")
    if program is None:
        raise NoSSH("no system 'ssh' command found: install openssh-client")
    known = write_known_hosts(status) if host_keys(peer) else None
    proxy = None if status["TUN"] else proxy_command(local.path)
    command = [program, *options(peer, known, proxy), target(user, peer), *arguments]
    try:
        os.execv(program, command)  # noqa: S606
    except OSError as error:
        raise NoSSH(f"cannot run {program}: {error.strerror or error}") from error


def target(user: str, peer: Mapping[str, Any]) -> str:
    host = plain_name(peer) or address_of(peer)
    return f"{user}@{host}" if user else host


def plain_name(peer: Mapping[str, Any]) -> str:
    """Its full name, unless ssh could take that for an option or a pattern: names are a server's word."""
    name = str(peer["DNSName"]).rstrip(".")
    return name if PLAIN_NAME.fullmatch(name) else ""


def options(peer: Mapping[str, Any], known: Path | None, proxy: str | None) -> Iterator[str]:
    """To the peer's address, whatever its name resolves to; by its key alone where one is known.

    Without one, ssh asks as it always does.
    """
    settings = [f"HostName {address_of(peer)}", "CanonicalizeHostname no"]
    if name := plain_name(peer):
        settings.append(f"HostKeyAlias {name}")
    if known is not None:
        settings += [
            f'UserKnownHostsFile "{known}"',
            "GlobalKnownHostsFile none",
            "UpdateHostKeys no",
            "StrictHostKeyChecking yes",
        ]
    if proxy is not None:
        settings.append(f"ProxyCommand {proxy}")
    for setting in settings:
        yield from ("-o", setting)


def address_of(peer: Mapping[str, Any]) -> str:
    """Its IPv4 address, if it has one; never anything but an address."""
    addresses = [ipaddress.ip_address(text) for text in peer["TailscaleIPs"]]
    if not addresses:
        raise PeerNotFound("this device has no address")
    return str(min(addresses, key=lambda address: address.version))


def proxy_command(socket: str) -> str:
    """Through the daemon, where only it is inside the tailnet."""
    words = [sys.executable, "-m", "client.cli"]
    words += [] if socket == DEFAULT_SOCKET else ["--socket", socket]
    return " ".join([*map(shlex.quote, words), "nc", "%h", "%p"])


def host_keys(peer: Mapping[str, Any]) -> list[str]:
    """The keys that may stand in a known_hosts file: one line each, of printable text."""
    keys = [str(key).strip() for key in peer.get("sshHostKeys") or ()]
    return [
        key
        for key in keys
        if key.isascii() and key.isprintable() and 2 <= len(key.split()) <= 3 and len(key) <= MAX_KEY_LENGTH
    ]


def known_hosts(peers: Sequence[Mapping[str, Any]]) -> str:
    """A known_hosts file of all peers whose keys are known. Pure."""
    lines = []
    for peer in sorted(peers, key=lambda peer: str(peer["DNSName"])):
        names = [name] if (name := plain_name(peer)) else []
        names += [str(ipaddress.ip_address(text)) for text in peer["TailscaleIPs"]]
        lines += [f"{','.join(names)} {key}\n" for key in host_keys(peer)]
    return "".join(lines)


def write_known_hosts(status: Mapping[str, Any]) -> Path:
    """Written anew only when it changed; raises :class:`NoSSH`."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    path = Path(base, "trenza", KNOWN_HOSTS)
    content = known_hosts(list(status["Peer"].values()))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != content:
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(content)
            temporary.replace(path)
    except OSError as error:
        raise NoSSH(f"cannot write {path}: {error.strerror or error}") from error
    return path
