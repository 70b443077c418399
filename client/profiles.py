"""The accounts of this device. Each has an identity, preferences and a network map of its own; one is in use.

``profiles.json`` in the state folder lists them. The first one's files lie in that folder itself, those of
others in ``profiles/ID``. Without the list there is the first one alone.
Source of the names: tailscale ipn (LoginProfile).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from client.errors import ClientError

FORMAT = 1
PROFILES = "profiles.json"
FOLDER = "profiles"
MAX_PROFILES = 64
MAX_TEXT = 1024
ID = re.compile(r"[0-9a-f]{4}")
ID_BYTES = 2


class ProfileError(ClientError):
    """There is no such account, or it cannot be had."""

    code = "profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """``is_first``: its files lie in the state folder itself. The texts are empty until it signed in."""

    id: str
    is_first: bool = False
    tailnet: str = ""
    account: str = ""
    control_url: str = ""

    @property
    def folder(self) -> str:
        """Where its files lie in the state folder."""
        return "" if self.is_first else f"{FOLDER}/{self.id}"

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "first": self.is_first,
            "tailnet": self.tailnet,
            "account": self.account,
            "control_url": self.control_url,
        }

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises ``ValueError`` for anything unexpected."""
        if not isinstance(content, Mapping) or not ID.fullmatch(str(content.get("id"))):
            raise ValueError("an account has no ID")
        texts = {name: content.get(name, "") for name in ("tailnet", "account", "control_url")}
        if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts.values()):
            raise ValueError("a member has a wrong value")
        return cls(id=str(content["id"]), is_first=content.get("first") is True, **texts)


@dataclass(frozen=True, slots=True)
class Profiles:
    """The list, and the ID of the one in use. Immutable: a change is a new one."""

    current_id: str
    all: tuple[Profile, ...]

    @classmethod
    def fresh(cls, entropy: Callable[[int], bytes]) -> Self:
        first = Profile(id=entropy(ID_BYTES).hex(), is_first=True)
        return cls(first.id, (first,))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises ``ValueError``."""
        if content.get("format") != FORMAT:
            raise ValueError(f"its format is {content.get('format')!r}, this version reads {FORMAT}")
        listed = content.get("profiles")
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_PROFILES:
            raise ValueError("it lists no accounts")
        found = tuple(map(Profile.from_json, listed))
        ids = [profile.id for profile in found]
        if len(set(ids)) != len(ids) or content.get("current") not in ids:
            raise ValueError("its accounts contradict one another")
        if sum(profile.is_first for profile in found) > 1:
            raise ValueError("two accounts lie in one place")
        return cls(str(content["current"]), found)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "current": self.current_id,
            "profiles": [profile.to_json() for profile in self.all],
        }

    @property
    def current(self) -> Profile:
        return self.by_id(self.current_id)

    def by_id(self, profile_id: str) -> Profile:
        """Raises :class:`ProfileError`."""
        for profile in self.all:
            if profile.id == profile_id:
                return profile
        raise ProfileError(f"no account {profile_id!r}: trenza switch --list shows them")

    def find(self, text: str) -> Profile:
        """By ID, tailnet or account, in that order; raises :class:`ProfileError`."""
        for name in ("id", "tailnet", "account"):
            found = [profile for profile in self.all if getattr(profile, name) == text]
            if len(found) > 1:
                raise ProfileError(f"several accounts are called {text!r}: give the ID of one")
            if found:
                return found[0]
        raise ProfileError(f"no account named {text!r}: trenza switch --list shows them")

    def with_new(self, entropy: Callable[[int], bytes]) -> Self:
        """One more account, which is in use; raises :class:`ProfileError`."""
        if len(self.all) >= MAX_PROFILES:
            raise ProfileError(f"{MAX_PROFILES} accounts are here already: remove one")
        taken = {profile.id for profile in self.all}
        new = entropy(ID_BYTES).hex()
        while new in taken:
            new = entropy(ID_BYTES).hex()
        return replace(self, current_id=new, all=(*self.all, Profile(id=new)))

    def using(self, profile_id: str) -> Self:
        return replace(self, current_id=self.by_id(profile_id).id)

    def without(self, profile_id: str) -> Self:
        """Raises :class:`ProfileError` for the one in use."""
        if self.by_id(profile_id).id == self.current_id:
            raise ProfileError("this account is in use: switch to another one first")
        return replace(self, all=tuple(profile for profile in self.all if profile.id != profile_id))

    def describing(self, *, tailnet: str, account: str, control_url: str) -> Self:
        """What is known of the account in use."""
        texts = (tailnet[:MAX_TEXT], account[:MAX_TEXT], control_url[:MAX_TEXT])
        named = replace(self.current, tailnet=texts[0], account=texts[1], control_url=texts[2])
        return replace(self, all=tuple(named if profile.id == named.id else profile for profile in self.all))
