"""The state folder: who this node is, what its user wants, and the last netmap.

=============== =========================================================================================
lock            held while a daemon runs; a second one on the same folder is refused at once
node.json       the identity: machine key, node key, listen port, the control server's key
prefs.json      :class:`client.prefs.Prefs`
netmap.json     the last netmap, bound to the server's address and key and to the node key
profiles.json   the accounts, where there is more than one, and where their files lie
=============== =========================================================================================

Files are 0600 and replaced atomically. A damaged identity is an error that names the file: a new identity is
never made in place of an old one. The netmap is a cache and may be lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from client.errors import PrefsError, StoreError
from client.identity import FORMAT, Identity
from client.prefs import Prefs
from client.profiles import PROFILES, Profiles
from client.statefiles import reason, replace_file
from wire.codec import decode_object, encode_json
from wire.delta import apply
from wire.errors import KeyFormatError, WireError
from wire.keys import MachinePrivate, NodePrivate
from wire.netmap import MapResponse, NetMap

LOCK, NODE, PREFS, NETMAP = "lock", "node.json", "prefs.json", "netmap.json"
MAX_STATE_BYTES = 64 * 1024
MAX_NETMAP_BYTES = 64 * 1024 * 1024
KEY_BYTES = 32


def _netmap_check(content: Any) -> str:
    """A flipped bit in a cached netmap would be another peer's key or route: it proves itself, too."""
    return hashlib.sha256(encode_json(content)).hexdigest()


@dataclass
class Store:
    """The state folder, held by one daemon. ``entropy`` gives random bytes for new keys.

    ``identity`` and ``prefs`` are those of the account in use; ``place`` is where its files lie.
    """

    folder: Path
    entropy: Callable[[int], bytes] = field(default=os.urandom, repr=False)
    identity: Identity = field(init=False)
    prefs: Prefs = field(init=False)
    profiles: Profiles = field(init=False)
    place: Path = field(init=False)
    _lock: int = field(init=False, default=-1)
    # Netmaps are saved from a thread, which may still write when the last save of a run begins.
    _writing: threading.Lock = field(init=False, default_factory=threading.Lock, repr=False)

    def open(self) -> None:
        """Lock the folder and read it, making an identity only in a folder that never had one.

        Raises :class:`StoreError`.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use the state folder {self.folder}: {reason(error)}") from error
        try:
            self._take_lock()
            self.profiles = self._read_profiles()
            self._enter(self.profiles)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreError(f"cannot lock {self.folder / LOCK}: {reason(error)}") from error
            raise StoreError(
                f"another trenzad already runs on the state folder {self.folder}: stop it, or give this one "
                "its own --state, --socket and --tun"
            ) from None

    # --- accounts ----------------------------------------------------------------------------------------

    def _read_profiles(self) -> Profiles:
        content = self._read(self.folder / PROFILES)
        try:
            return Profiles.fresh(self.entropy) if content is None else Profiles.from_json(content)
        except ValueError as error:
            raise self._corrupt(self.folder / PROFILES, str(error)) from error

    def _enter(self, profiles: Profiles) -> None:
        """Read the files of the account in use; should they be damaged, nothing has changed."""
        before = getattr(self, "place", self.folder)
        self.place = self.folder / profiles.current.folder
        try:
            prefs = self._read_prefs()
            identity = self._read_identity(signed_in=bool(profiles.current.tailnet))
        except BaseException:
            self.place = before
            raise
        self.profiles, self.prefs, self.identity = profiles, prefs, identity

    def switch(self, profile_id: str) -> None:
        """Use another account from now on, also after a restart. One that never signed in is dropped."""
        left, identity = self.profiles.current, self.identity
        is_blank = not left.tailnet and identity.node is None and identity.pending is None
        self._enter_for_good(self.profiles.using(profile_id))
        if is_blank and left.id != profile_id:
            self.remove_profile(left.id)

    def new_profile(self) -> None:
        """Use a new account, with a new identity. The operator and the server stay as they are."""
        kept = Prefs(operator=self.prefs.operator, control_url=self.prefs.control_url)
        profiles = self.profiles.with_new(self.entropy)
        try:
            (self.folder / profiles.current.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make a place for the account: {reason(error)}") from error
        self._enter_for_good(profiles)
        self.set_prefs(kept)

    def _enter_for_good(self, profiles: Profiles) -> None:
        before = self.profiles
        self._enter(profiles)
        try:
            self._write(self.folder / PROFILES, profiles.to_json())
        except StoreError:
            self._enter(before)
            raise

    def remove_profile(self, profile_id: str) -> None:
        """Forget an account that is not in use, with its keys."""
        gone = self.profiles.by_id(profile_id)
        profiles = self.profiles.without(profile_id)
        self._write(self.folder / PROFILES, profiles.to_json())
        self.profiles = profiles
        place = self.folder / gone.folder
        for name in (NETMAP, PREFS, NODE):
            (place / name).unlink(missing_ok=True)
        if not gone.is_first:
            shutil.rmtree(place, ignore_errors=True)

    def describe_profile(self, netmap: NetMap) -> None:
        """Remember whose account this is; a map of nobody says nothing of it."""
        if not netmap.domain:
            return
        owner = netmap.user_profiles.get(netmap.node.user)
        profiles = self.profiles.describing(
            tailnet=netmap.domain,
            account=owner.login_name if owner else "",
            control_url=self.identity.control_url,
        )
        if profiles != self.profiles:
            self._write(self.folder / PROFILES, profiles.to_json())
            self.profiles = profiles

    # --- identity and prefs ------------------------------------------------------------------------------

    def _read_identity(self, *, signed_in: bool) -> Identity:
        content = self._read(self.place / NODE)
        if content is None:
            left = [name for name in (PREFS, NETMAP) if (self.place / name).exists()]
            if signed_in and not left:
                raise StoreError(
                    f"{self.place / NODE} is missing though {self.folder / PROFILES} lists its account: "
                    "put it back from a backup, or take the account out of that list"
                )
            if left:
                raise StoreError(
                    f"{self.place / NODE} is missing though {left[0]} is there: put it back from a backup, "
                    f"or empty {self.place} to start as a new device"
                )
            identity = Identity(machine=MachinePrivate.generate(self.entropy(KEY_BYTES)))
            self._write(self.place / NODE, identity.to_json())
            return identity
        try:
            return Identity.from_json(content)
        except (KeyFormatError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._corrupt(self.place / NODE, str(error) or type(error).__name__) from error

    def _read_prefs(self) -> Prefs:
        content = self._read(self.place / PREFS)
        try:
            return Prefs() if content is None else Prefs.from_json(content)
        except PrefsError as error:
            raise self._corrupt(self.place / PREFS, str(error)) from error

    def _corrupt(self, path: Path, why: str) -> StoreError:
        remedies = {
            NODE: f"empty {path.parent} to start as a new device",
            PROFILES: "remove it to use this device's first account",
        }
        remedy = remedies.get(path.name, "remove it and set your preferences again with trenza up")
        return StoreError(f"{path} is damaged ({why}): put it back from a backup, or {remedy}")

    def set_prefs(self, prefs: Prefs) -> None:
        self._write(self.place / PREFS, prefs.to_json())
        self.prefs = prefs

    def set_identity(self, **changes: Any) -> None:
        """Change members of the identity; they are on disk when this returns."""
        identity = replace(self.identity, **changes)
        if identity != self.identity:
            self._write(self.place / NODE, identity.to_json())
            self.identity = identity

    def new_node_key(self, *, rotating: bool = False) -> NodePrivate:
        """The key to register with: on disk as ``pending`` before any server hears of it."""
        key = NodePrivate.generate(self.entropy(KEY_BYTES))
        self.set_identity(pending=key, rotating=rotating)
        return key

    def adopt_pending(self, **changes: Any) -> None:
        """The server took the pending key: it is this node's key now, in one write with other ``changes``."""
        self.set_identity(node=self.identity.pending, pending=None, rotating=False, **changes)

    # --- the cached netmap -------------------------------------------------------------------------------

    def save_netmap(self, netmap: NetMap) -> None:
        content = {"format": FORMAT, "binding": self._binding(), "map": netmap_json(netmap)}
        self._write(self.place / NETMAP, content | {"check": _netmap_check(content["map"])})

    def load_netmap(self) -> NetMap | None:
        """The cached netmap, if it is whole and belongs to this server and this node key."""
        try:
            content = self._read(self.place / NETMAP, MAX_NETMAP_BYTES)
            if (
                content is None
                or content.get("binding") != self._binding()
                or content.get("format") != FORMAT
                or content.get("check") != _netmap_check(content.get("map"))
            ):
                return None
            return apply(None, MapResponse.from_json(content.get("map")))
        except (StoreError, WireError, ValueError):
            return None

    def forget_netmap(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.place / NETMAP).unlink()

    def _binding(self) -> list[str]:
        identity = self.identity
        node = str(identity.node.public()) if identity.node else ""
        return [identity.control_url, str(identity.control_key or ""), node]

    # --- files -------------------------------------------------------------------------------------------

    def _read(self, path: Path, max_bytes: int = MAX_STATE_BYTES) -> dict[str, Any] | None:
        try:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {reason(error)}") from error
        try:
            return decode_object(data, max_bytes)
        except WireError:
            why = "it is empty" if not data else "it is not the JSON that was written"
            raise self._corrupt(path, why) from None

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Replace a file so that a reader, or a crash at any point, finds the old or the new one whole."""
        compact = path.name == NETMAP
        data = encode_json(content) if compact else json.dumps(content, indent=2).encode() + b"\n"
        try:
            with self._writing:
                replace_file(path, data)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {reason(error)}") from error


def netmap_json(netmap: NetMap) -> dict[str, Any]:
    """The one map message that makes this netmap (health is left out: it tells of a moment)."""
    content: dict[str, Any] = {
        "Node": netmap.node.to_json(),
        "Peers": [peer.to_json() for peer in netmap.peers.values()],
        "DERPMap": netmap.derp_map.to_json(),
        "DNSConfig": netmap.dns_config.to_json(),
        "Domain": netmap.domain,
        "UserProfiles": [profile.to_json() for profile in netmap.user_profiles.values()],
        "SSHPolicy": dict(netmap.ssh_policy),
    }
    if netmap.packet_filters is not None:
        content["PacketFilters"] = {
            name: [rule.to_json() for rule in rules] for name, rules in netmap.packet_filters.items()
        }
    return content
