"""``manage.py serve``: a small parent that keeps the web workers and the relay running.

It binds the web socket and hands it to its workers, so a worker can die or be replaced (SIGHUP) while
clients wait in the backlog instead of being refused. The relay runs in a session of its own, with its own
sockets: it outlives a killed parent, and the next ``serve`` adopts it through the lock file in DATA.
No Django is loaded here.
"""

from __future__ import annotations

from controlplane.supervisor.commandline import main

__all__ = ["main"]
