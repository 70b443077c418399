"""What may be asked of the daemon, by method and path, and the node's method that answers."""

from __future__ import annotations

import pwd
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from client.backend import Backend
from client.commands import Commands
from client.errors import PrefsError
from client.exitnodes import ExitNodes
from client.hostinfo import program_version
from client.http1 import BadRequest
from client.localapi.files import FILE_PUT, FILES, FileRoutes
from client.localapi.server import Request
from client.localapi.tools import ToolRoutes
from client.notices import Notice
from client.store import netmap_json

PREFIX = "/localapi/v0/"
MAX_PING_SECONDS = 60.0
Route = Callable[[Request], Awaitable[Any]]


class Routes:
    """Calls :class:`client.commands.Commands` for a request."""

    def __init__(self, backend: Backend, commands: Commands) -> None:
        self._backend = backend
        self._commands = commands
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "status"): self._status,
            ("GET", "prefs"): self._prefs,
            ("PATCH", "prefs"): self._edit_prefs,
            ("GET", "watch"): self._watch,
            ("GET", "whois"): self._whois,
            ("GET", "version"): self._version,
            ("GET", "debug/netmap"): self._netmap,
            ("GET", "debug/derp-map"): self._derp_map,
            ("POST", "up"): self._up,
            ("POST", "down"): self._down,
            ("POST", "logout"): self._logout,
            ("POST", "rotate-keys"): self._rotate,
            ("POST", "ping"): self._ping,
            ("POST", "netcheck"): self._netcheck,
            ("GET", "suggest-exit-node"): self._suggest_exit_node,
            ("GET", "dns"): self._dns_status,
            ("POST", "dns-query"): self._dns_query,
        }
        files, tools = FileRoutes(backend, commands), ToolRoutes(backend, commands)
        self._routes |= {
            ("GET", "file-targets"): files.targets,
            ("GET", "metrics"): tools.metrics,
            ("POST", "bugreport"): tools.bugreport,
            ("POST", "dial"): tools.dial,
            ("POST", "sleep"): tools.sleep,
            ("GET", "profiles"): tools.profiles,
            ("POST", "profiles/switch"): tools.switch,
            ("POST", "profiles/new"): tools.new_profile,
            ("POST", "profiles/remove"): tools.remove_profile,
        }
        # What begins so may be followed by names.
        self._prefixes: dict[tuple[str, str], Route] = {
            ("PUT", FILE_PUT): files.put,
            ("GET", FILES): files.get,
            ("DELETE", FILES): files.delete,
        }

    def _find(self, method: str, name: str) -> Route | None:
        prefix = name[: name.find("/") + 1]
        return self._routes.get((method, name)) or self._prefixes.get((method, prefix))

    async def handle(self, request: Request) -> Any:
        """The answer in JSON's types; raises ``ClientError``."""
        route = self._find(request.method, request.path.removeprefix(PREFIX))
        if route is None or not request.path.startswith(PREFIX):
            raise BadRequest(404, f"there is no {request.method} {request.path}")
        return await route(request)

    async def _status(self, request: Request) -> Any:
        return self._commands.status(peers=request.query.get("peers") != "false")

    async def _prefs(self, request: Request) -> Any:
        return self._backend.store.prefs.to_json()

    async def _edit_prefs(self, request: Request) -> Any:
        changes = request.json()
        check_operator(changes.get("OperatorUser"))
        return self._commands.edit_prefs(changes).to_json()

    async def _watch(self, request: Request) -> Any:
        return self._notices()

    async def _notices(self) -> AsyncGenerator[Notice, None]:
        queue = self._backend.watchers.add([self._backend.notice()])
        try:
            while True:
                yield await queue.get()
        finally:
            self._backend.watchers.remove(queue)

    async def _whois(self, request: Request) -> Any:
        return self._commands.whois(request.query.get("addr", ""))

    async def _version(self, request: Request) -> Any:
        return {"version": program_version()}

    async def _netmap(self, request: Request) -> Any:
        return netmap_json(self._commands.netmap())

    async def _derp_map(self, request: Request) -> Any:
        return self._commands.netmap().derp_map.to_json()

    async def _up(self, request: Request) -> Any:
        content = request.json()
        changes, key = content.get("Prefs", {}), content.get("AuthKey", "")
        if not isinstance(changes, dict) or not isinstance(key, str):
            raise BadRequest(400, "Prefs must be an object and AuthKey a text")
        check_operator(changes.get("OperatorUser"))
        await self._commands.up(changes, auth_key=key, force_reauth=content.get("ForceReauth") is True)
        return {}

    async def _down(self, request: Request) -> Any:
        await self._commands.down()
        return {}

    async def _logout(self, request: Request) -> Any:
        return {"Warning": await self._commands.logout()}

    async def _rotate(self, request: Request) -> Any:
        await self._commands.rotate()
        return {}

    async def _ping(self, request: Request) -> Any:
        content = request.json()
        target, seconds = content.get("Target"), content.get("Timeout", 5.0)
        if not isinstance(target, str) or not isinstance(seconds, int | float):
            raise BadRequest(400, "Target must be a text and Timeout a number of seconds")
        return await self._commands.ping(target, min(max(float(seconds), 0.05), MAX_PING_SECONDS))

    async def _suggest_exit_node(self, request: Request) -> Any:
        return ExitNodes(self._backend).suggest()

    async def _netcheck(self, request: Request) -> Any:
        return await self._commands.netcheck()

    async def _dns_status(self, request: Request) -> Any:
        return self._commands.dns_status()

    async def _dns_query(self, request: Request) -> Any:
        content = request.json()
        name, kind = content.get("Name"), content.get("Type", "A")
        if not isinstance(name, str) or not isinstance(kind, str):
            raise BadRequest(400, "Name and Type must be texts")
        return await self._commands.dns_query(name, kind)


def operator_uid(name: str) -> int | None:
    """The operator's user ID; ``None`` when none is named or the name is gone."""
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return None


def check_operator(name: Any) -> None:
    """Raises :class:`PrefsError` for a user that this host does not have."""
    if isinstance(name, str) and name and operator_uid(name) is None:
        raise PrefsError(f"this machine has no user {name!r}")
