"""What a relay keeps in DATA: its key, its last list of served keys, its lock. All private (0600)."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from relay.config import ConfigProblem
from relay.limits import MAX_KEYS_FILE
from wire.errors import WireError
from wire.keys import NodePrivate, NodePublic

KEY_FILE = "derp.key"
KEYS_FILE = "relay.keys"
LOCK_FILE = "relay.lock"
SOCKET_FILE = "relay.sock"


def write_private(path: Path, data: bytes) -> None:
    """Replace a file as a whole; nobody else can read it at any moment."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def prepare_data(data: Path) -> None:
    """Make DATA; raises :class:`ConfigProblem` when that cannot be."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigProblem(
            f"cannot make {data}: {error.strerror}; set TRENZA_RELAY_DATA to a folder of this user"
        ) from error


def load_key(data: Path) -> NodePrivate:
    """The relay's own key, made at the first start; a damaged file is never replaced."""
    path = data / KEY_FILE
    try:
        return NodePrivate.parse(path.read_text().strip())
    except FileNotFoundError:
        key = NodePrivate.generate(secrets.token_bytes(32))
        write_private(path, key.text().encode() + b"\n")
        return key
    except (WireError, UnicodeDecodeError) as error:
        raise ConfigProblem(f"{path} is damaged; restore it, or delete it to make a new key") from error


def save_served(data: Path, keys: Iterable[bytes]) -> None:
    """Keep the list of raw node keys that the server named last."""
    text = "".join(f"{NodePublic.prefix}{key.hex()}\n" for key in sorted(keys))
    write_private(data / KEYS_FILE, text.encode())


def load_served(data: Path) -> frozenset[bytes] | None:
    """The kept list as raw keys; ``None`` when there is none that can be trusted (then nobody is served)."""
    path = data / KEYS_FILE
    try:
        if path.stat().st_size > MAX_KEYS_FILE:
            return None
        return frozenset(NodePublic.parse(line).raw for line in path.read_text().splitlines() if line)
    except (OSError, UnicodeDecodeError, WireError):
        return None


class Lock:
    """The lock file: held while the relay runs, with its pid and start time for whoever wants to adopt it."""

    def __init__(self, data: Path) -> None:
        """Raises :class:`ConfigProblem` when another relay holds it."""
        self._descriptor = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise ConfigProblem(
                f"another relay runs on {data}; stop it, or give this one its own TRENZA_RELAY_DATA"
            ) from None
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps({"pid": os.getpid(), "started": started}).encode() + b"\n")

    def release(self) -> None:
        """Let the next relay start; the file stays."""
        os.close(self._descriptor)
