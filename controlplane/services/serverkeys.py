"""The server's own long-lived keys, kept in DATA (0600) and never in the database.

The database only knows their fingerprints, so a second host of a scaled installation that was given other
keys refuses to start instead of stranding every client.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from functools import lru_cache
from pathlib import Path

from controlplane.env import EnvironmentProblem, environment, read_or_make_secret
from controlplane.models import ServerKey
from wire.errors import WireError
from wire.keys import MachinePrivate, MachinePublic

logger = logging.getLogger("trenza.keys")

FILES = {"noise": "noise.key", "secret_key": "secret_key (or set TRENZA_SECRET_KEY)"}


def load_or_make(path: Path) -> MachinePrivate:
    """Read a machine-type private key in its text form, or make one; a damaged file is never replaced."""
    text = read_or_make_secret(path, lambda: MachinePrivate.generate(secrets.token_bytes(32)).text())
    try:
        return MachinePrivate.parse(text)
    except WireError as error:
        raise EnvironmentProblem(
            f"{path} is damaged; restore it from a backup (a new key would strand every client)"
        ) from error


@lru_cache(maxsize=1)
def noise_key() -> MachinePrivate:
    """The Noise static key that every client has pinned (DATA/noise.key)."""
    return load_or_make(environment().data / "noise.key")


@lru_cache(maxsize=1)
def noise_public() -> MachinePublic:
    return noise_key().public()


def fingerprint(public: MachinePublic) -> str:
    """A short name of a public key that is safe to store and show: 16 hex digits of its SHA-256."""
    return hashlib.sha256(public.raw).hexdigest()[:16]


def check_fingerprints() -> None:
    """Compare this host's keys with what the database knows; the first host's are noted.

    Raises :class:`EnvironmentProblem` where several hosts share a database: clients of one could not talk to
    the other, and each would sign the other's people out. A single server says so and goes on with its own.
    """
    own = {
        "noise": fingerprint(noise_public()),
        "secret_key": hashlib.sha256(environment().secret_key.encode()).hexdigest()[:16],
    }
    for name, current in own.items():
        row, _made = ServerKey.objects.get_or_create(name=name, defaults={"fingerprint": current})
        if row.fingerprint == current:
            continue
        problem = f"the database belongs to a server with another {name} than the one in {environment().data}"
        if environment().scaled:
            raise EnvironmentProblem(f"{problem}; copy {FILES[name]} from the first host's TRENZA_DATA")
        logger.warning("%s; clients that know the other one must sign in anew", problem)
        ServerKey.objects.filter(pk=row.pk).update(fingerprint=current)
