"""The coordination server in a namespace: ``manage.py serve`` with its own DATA, and its operator."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import sqlite3
import sys
from typing import Any

from controlplane.supervisor.relay import read_relay_status
from tests.commands import Operator
from tests.controlplane.serving import prepared_data
from tests.lab.net import COMMAND_SECONDS, PATIENCE, LabError, Namespace
from tests.lab.person import Person
from tests.lab.processes import CHECKOUT, Daemon, clean_environment, process_command, wait_for

PORT = 8080
READY_SECONDS = 60.0
MANAGE = CHECKOUT / "manage.py"
OWNER = "owner@localhost"
TAILNET = "default"


class Server:
    """``manage.py serve`` at ``http://ADDRESS:8080`` in its namespace, prepared, with its first tailnet."""

    def __init__(self, namespace: Namespace, **settings: str) -> None:
        self.namespace = namespace
        self.data = namespace.folder / "data"
        self.url = settings.pop("TRENZA_URL", f"http://{namespace.address4}:{PORT}")
        self.environment = clean_environment(
            TRENZA_DATA=str(self.data),
            TRENZA_URL=self.url,
            TRENZA_LISTEN=f"{namespace.address4}:{PORT}",
            **settings,
        )
        self.daemon = Daemon(
            namespace, [sys.executable, MANAGE, "serve"], namespace.folder / "serve.log", self.environment
        )
        self._operator = Operator(self.environment, namespace.spawn)
        shutil.copytree(prepared_data(), self.data)

    # -- life

    def start(self, *, relay: bool = True) -> Server:
        """Start and wait until the web server (and the relay) serve."""
        self.daemon.start()
        self.wait_web()
        if relay:
            self.wait_relay()
        return self

    def wait_relay(self) -> None:
        """Wait until clients can be told where the relay is."""
        wait_for("the relay is in the DERP map", self._relay_is_known, seconds=READY_SECONDS)

    def wait_web(self) -> None:
        def ready() -> bool:
            if not self.daemon.running:
                raise LabError(f"serve ended\n{self.daemon.tail()}")
            return self.answers()

        wait_for("the server is ready", ready, seconds=READY_SECONDS)

    def answers(self, path: str = "/readyz") -> bool:
        """Whether the web server answers 200."""
        with self.namespace.entered():
            connection = http.client.HTTPConnection(self.namespace.address4, PORT, timeout=2)
            try:
                connection.request("GET", path)
                return connection.getresponse().status == 200
            except OSError:
                return False
            finally:
                connection.close()

    def _relay_is_known(self) -> bool:
        """The relay has reported, and its row may be told to clients (read past Django, read-only)."""
        database = sqlite3.connect(f"file:{self.data / 'db.sqlite3'}?mode=ro", uri=True, timeout=5)
        with contextlib.closing(database):
            rows = database.execute("SELECT 1 FROM controlplane_relay WHERE embedded AND enabled").fetchall()
        return bool(rows) and self.relay_pid() is not None

    def relay_pid(self) -> int | None:
        """The embedded relay's process, as it says itself; ``None`` when none answers."""
        status = asyncio.run(read_relay_status(self.data))
        return status.pid if status else None

    def web_pids(self) -> set[int]:
        """The parent and the web workers."""
        return {pid for pid in self.namespace.pids() if str(MANAGE) in process_command(pid)}

    def kill_web(self) -> None:
        """``kill -9`` of the parent and the web workers at once. The relay lives on."""
        _kill(*self.web_pids())
        self.daemon.wait()

    def kill_relay(self) -> None:
        """``kill -9`` of the relay."""
        if (pid := self.relay_pid()) is not None:
            _kill(pid)

    def stop(self) -> None:
        """End everything in order."""
        self._operator.close()
        self.daemon.stop()

    # -- its database, past Django

    def look(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read rows, quick enough to be asked often."""
        database = sqlite3.connect(f"file:{self.data / 'db.sqlite3'}?mode=ro", uri=True, timeout=5)
        with contextlib.closing(database):
            return database.execute(query, values).fetchall()

    def alter(self, statement: str, *values: Any) -> None:
        """Change rows as no service does (a key made months ago, say); netmaps follow."""
        database = sqlite3.connect(self.data / "db.sqlite3", timeout=20)
        with contextlib.closing(database), database:
            database.execute(statement, values)
            database.execute("UPDATE accounts_tailnet SET netmap_version = netmap_version + 1")

    # -- the operator

    def manage(self, *arguments: str) -> Any:
        """``manage.py …`` beside the server; its JSON value when ``--json`` was asked for."""
        try:
            return self._operator.run(*arguments, seconds=COMMAND_SECONDS * PATIENCE)
        except RuntimeError as error:
            raise LabError(str(error)) from None

    def auth_key(self, *options: str, tailnet: str = TAILNET) -> str:
        """A fresh pre-auth key (pre-approved unless options are given)."""
        return str(self.manage("createauthkey", tailnet, *(options or ("--preapproved",)), "--json")["key"])

    def approve(self, node: str, *, tailnet: str = TAILNET) -> Any:
        """``manage.py approvenode`` from another process."""
        return self.manage("approvenode", tailnet, node, "--json")

    def approve_routes(self, node: str, *prefixes: str, tailnet: str = TAILNET) -> Any:
        """``manage.py approveroutes``: exactly these of what the device offers; without any: all."""
        return self.manage("approveroutes", tailnet, node, *prefixes, "--json")

    def nodes(self, *, tailnet: str = TAILNET) -> dict[str, dict[str, Any]]:
        """The tailnet's devices by host name (the first label of their name)."""
        found = self.manage("listnodes", tailnet, "--json")
        return {str(device["name"]).partition(".")[0]: device for device in found}

    def sign_in_link(self, email: str = OWNER, *options: str) -> str:
        return str(self.manage("signinlink", email, "--create", *options, "--json")["url"])

    def person(self, namespace: Namespace, email: str = OWNER, *options: str) -> Person:
        """Somebody signed in to the panel by a one-time link, on the machine ``namespace``."""
        person = Person(namespace, self.url)
        person.open(self.sign_in_link(email, *options))
        return person


def _kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
