"""Who does something, as the audit log names them: services take an :class:`Actor` as ``by``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from accounts.models import User


class ActorType(StrEnum):
    USER = "USER"
    NODE = "NODE"
    CREDENTIAL = "API_TOKEN"
    SYSTEM = "AUTOMATED_WORKER"


class Origin(StrEnum):
    """Through which door a change came."""

    CONSOLE = "ADMIN_CONSOLE"
    API = "API"
    COMMAND = "CLI"
    NODE = "NODE"
    CONTROL = "CONTROL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The author of a change; ``user`` when it is a person (or acts as one)."""

    type: ActorType
    origin: Origin
    id: str = ""
    name: str = ""
    user: User | None = None

    @classmethod
    def person(cls, user: User, origin: Origin = Origin.CONSOLE) -> Actor:
        return cls(type=ActorType.USER, origin=origin, id=str(user.pk), name=user.login_name, user=user)

    @classmethod
    def node(cls, node_id: int, name: str) -> Actor:
        return cls(type=ActorType.NODE, origin=Origin.NODE, id=str(node_id), name=name)

    @classmethod
    def token(cls, public_id: str, user: User | None) -> Actor:
        name = user.login_name if user is not None else public_id
        return cls(type=ActorType.CREDENTIAL, origin=Origin.API, id=public_id, name=name, user=user)

    @classmethod
    def command(cls) -> Actor:
        return cls(type=ActorType.SYSTEM, origin=Origin.COMMAND, name="manage.py")

    @classmethod
    def policy(cls) -> Actor:
        """The access rules, which approve what they were told to."""
        return cls(type=ActorType.SYSTEM, origin=Origin.CONTROL, name="policy")

    @classmethod
    def system(cls) -> Actor:
        return cls(type=ActorType.SYSTEM, origin=Origin.CONTROL, name="trenza")
