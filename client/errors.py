"""The client's error tree. A message is one line that says what is wrong and what to do about it."""

from __future__ import annotations


class ClientError(Exception):
    """Something the user can understand and act on. ``code`` is stable, the text is for people."""

    code = "client"


class EngineError(ClientError):
    """WireGuard, its interface or its process cannot do what is asked."""

    code = "engine"


class SetupError(ClientError):
    """The host lacks what the daemon needs: root, TUN, a free port, nftables."""

    code = "setup"


class StoreError(ClientError):
    """The state folder cannot be used: locked, unreadable, corrupt."""

    code = "store"


class PrefsError(ClientError):
    """A preference has a value that cannot be."""

    code = "prefs"


class ControlError(ClientError):
    """The control server cannot be reached, or does not speak its protocol.

    ``retry_after``: seconds for which it asked to be let be; 0 = it did not.
    """

    code = "control"

    def __init__(self, text: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class LoginError(ControlError):
    """The server refuses this login; the message holds the server's own words."""

    code = "login"


class UnknownNode(ControlError):
    """The server does not know this node's key (any more)."""

    code = "unknown-node"


class NotPermitted(ClientError):
    """Whoever asks may not."""

    code = "not-permitted"


class NotRunning(ClientError):
    """Nothing listens on the daemon's socket."""

    code = "not-running"


class PeerNotFound(ClientError):
    """No such peer in the netmap."""

    code = "peer-not-found"


class PingTimeout(ClientError):
    """A ping was not answered in time."""

    code = "ping-timeout"
