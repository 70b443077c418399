"""The API against its own description: Schemathesis makes up requests, right ones and wrong ones, and checks
that the server takes the right ones, refuses the wrong ones, and answers what the description says.

It runs in this process. Each call is in a transaction of its own, which is rolled back: so everything may be
asked for, and the things that requests name are always there.
"""

from __future__ import annotations

import copy
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.conf import LazySettings
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.pytest.lazy import get_all_tests

from accounts.roles import Role
from accounts.services.tokens import create_api_token, create_oauth_client, issue_access_token
from controlplane.api.openapi import document, operations
from tests.controlplane.api_places import bodies, fitting, furnished, others, places
from tests.controlplane.estate import ME, Estate
from tests.nodes import postgres
from tests.nodes.test_databases import INNER, run
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

CLIENT = "client"
CALLERS = (Role.OWNER.value, Role.NETWORK_ADMIN.value, Role.MEMBER.value, CLIENT)
FEW, MANY = 3, 100  # requests of each operation, beside those at the bounds of what it takes
# Their bodies are policies, a language that no schema says: what it takes may be refused all the same.
POLICIES = {"setPolicyFile", "previewRuleMatches"}
# What never succeeds here: a device must be connected, and grant it (test_api_own.py).
OUT_OF_REACH = {"POST /api/trenza/v1/device/{deviceId}/exit-node"}
LONGEST = 7200.0  # seconds of one test, on a machine that has other things to do
WORDS = ("zanahoria", "berenjena")


@dataclass(slots=True)
class Server:
    """The server as a WSGI application whose limits are never reached, and which may undo each request."""

    undoes: bool
    server: WSGIHandler = field(default_factory=WSGIHandler)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        cache.clear()
        with transaction.atomic():
            with closing(self.server(environ | {"HTTP_HOST": "testserver"}, start_response)) as answer:
                content = list(answer)
            transaction.set_rollback(self.undoes)
        return content


def name_of(case: schemathesis.Case) -> str:
    """The name of a request's operation."""
    return str(case.operation.definition.raw["operationId"])


@dataclass(slots=True)
class Caller:
    """Who calls, from which of two tailnets. ``proved`` are operations known to refuse who has no token."""

    token: str
    home: Estate
    away: Estate
    proved: set[str] = field(default_factory=set)
    aimed: set[str] = field(default_factory=set)

    def aim(self, case: schemathesis.Case) -> None:
        """Have most requests name what there is, and some what there is in the other tailnet.

        What is chosen follows from the request, so that it is the same when that is tried again.
        """
        if case.id in self.aimed:
            return
        self.aimed.add(case.id)
        chooser = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode(errors="replace"))
        if case.meta is None or not case.meta.is_negative_at(ParameterLocation.PATH):
            is_known = case.method.lower() == case.operation.method
            for name in list(case.path_parameters):
                chooser, choice = divmod(chooser, 8)
                # What there is no method for is looked at before that: only what is there refuses by method.
                if (value := self._named(name, choice if is_known else 2, chooser)) is not None:
                    case.path_parameters[name] = value
                if choice > 5:
                    case.path_parameters |= fitting(self.home).get(name_of(case), {})
        self.fill(case, {0: self.home, 1: self.home, 2: self.away}.get(chooser % 8))

    def fill(self, case: schemathesis.Case, estate: Estate | None) -> None:
        """Have a request that is none of the wrong ones say something sensible, about this estate."""
        is_right = case.meta is None or not case.meta.is_negative_at(ParameterLocation.BODY)
        if estate is not None and is_right and name_of(case) in bodies(estate):
            case.body = bodies(estate)[name_of(case)]

    def _named(self, name: str, choice: int, which: int) -> str | None:
        """What stands for a parameter of the path; ``None`` = what was made up."""
        if choice == 0:
            return None
        if choice == 1:
            return places(self.away)[name]
        more = others(self.home)[name]
        return more[which % len(more)] if choice < 5 and more else places(self.home)[name]

    def call(self, case: schemathesis.Case) -> None:
        """One request, and everything that is to be said of its answer."""
        self.aim(case)
        answer = case.call(headers=self.headers)
        self.look(case, answer)
        case.validate_response(
            answer,
            headers=self.headers,
            excluded_checks=self._needless(case),
            transport_kwargs={"headers": self.headers},
        )
        if 200 <= answer.status_code < 300:
            self.proved.add(case.operation.label)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def look(self, case: schemathesis.Case, answer: schemathesis.Response) -> None:
        """Nothing of the other tailnet is in an answer, apart from what the request itself said."""
        said = repr((case.path_parameters, case.query, case.body)).encode()
        shown = answer.content + repr(answer.headers).encode()
        leaked = [mark for mark in self.away.marks if mark in shown and mark not in said]
        assert leaked == [], f"{case.operation.label} shows {leaked}: {case}"

    def _needless(self, case: schemathesis.Case) -> list[CheckFunction]:
        """That a token is needed is so of an operation, and not of a request: as in Schemathesis's own
        runs, it is looked at where a call succeeds for the first time. It costs three calls each time.
        Which policies are taken, no schema says.
        """
        needless = ["ignored_auth"] if case.operation.label in self.proved else []
        if name_of(case) in POLICIES:
            needless.append("positive_data_acceptance")
        return CHECKS.get_by_names(needless)


def description(
    most: int,
    described: dict[str, Any] | None = None,
    *,
    undoes: bool = True,
    seed: int | None = None,
    **phases: Any,
) -> Any:
    """The API as Schemathesis reads it; ``most`` = how many requests it makes up for each operation.

    With a ``seed`` they are the same each time; ``phases`` that are false are left out, others set up.
    """
    wanted: dict[str, Any] = {
        "generation": {"max-examples": most},
        "phases": {name: one or {"enabled": False} for name, one in phases.items()},
    }
    config = SchemathesisConfig.from_dict(wanted | ({"seed": seed} if seed is not None else {}))
    schema = schemathesis.openapi.from_dict(described or document(), config=config)
    schema.app = Server(undoes)
    return schema


@pytest.fixture
def callers(db: None, settings: LazySettings) -> Iterator[Callable[[str, int], Caller]]:
    settings.MAIL_IS_SET_UP = True
    estates = [furnished(word, 177 + number) for number, word in enumerate(WORDS)]

    def caller(name: str, number: int) -> Caller:
        home, away = estates[number], estates[1 - number]
        if name == CLIENT:
            client = create_oauth_client(tailnet=home.tailnet, by=ME, scopes=["all"], tags=["tag:web"])
            token = issue_access_token(client_secret=client.text).text
        else:
            user = home.places[Role(name)].user
            token = create_api_token(tailnet=home.tailnet, user=user, by=ME).text
        return Caller(token, home, away)

    # As Django's own test client does: what would end the transaction of the test stays away.
    ends = (request_started, request_finished)
    for signal in ends:
        signal.disconnect(close_old_connections)
    yield caller
    for signal in ends:
        signal.connect(close_old_connections)
    cache.clear()


def ask(caller: Caller, schema: Any, subtests: pytest.Subtests) -> None:
    """Try all operations. Not by Schemathesis's own fixtures, which this pytest is too new for."""
    for made in get_all_tests(schema=schema, test_func=attempt, settings=None, given_kwargs=None):
        operation, test = made.ok()
        with subtests.test(operation.label):
            test(caller=caller)


def attempt(case: schemathesis.Case, caller: Caller) -> None:
    caller.call(case)


def test_the_api_does_as_it_says(callers: Callable[[str, int], Caller], subtests: pytest.Subtests) -> None:
    ask(callers(Role.OWNER.value, 0), description(FEW, seed=1, coverage=False), subtests)


@pytest.mark.long
@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize("name", CALLERS)
def test_the_api_does_as_it_says_whoever_asks(
    name: str, callers: Callable[[str, int], Caller], subtests: pytest.Subtests
) -> None:
    """Callers of the first tailnet, and on PostgreSQL of the second."""
    caller, schema = callers(name, int(INNER in os.environ)), description(MANY)
    ask(caller, schema, subtests)
    if name == Role.OWNER.value:  # who may everything: else much of this would try refusals alone
        labels = {made.ok().label for made in schema.get_all_operations()}
        assert labels - caller.proved == OUT_OF_REACH


@pytest.mark.long
@pytest.mark.needs("postgres")
@pytest.mark.timeout(LONGEST)
@pytest.mark.skipif(INNER in os.environ, reason="this is the run on PostgreSQL")
def test_the_api_does_as_it_says_on_postgres(tmp_path: Path) -> None:
    """Which refuses texts that SQLite keeps, and numbers that it stretches for."""
    tests = [f"{__file__}::{test_the_api_does_as_it_says_whoever_asks.__name__}"]
    with postgres.server(tmp_path) as url:
        database = postgres.new_database(url, "fuzz")
        run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "long", *tests], tmp_path, database)


# --- one call after another --------------------------------------------------------------------------------

# What an answer names (a JSON pointer), which parameter of paths it fills, and what is then asked for.
LINKS = {
    "createKey": ("/id", "keyId", ("getKey", "setKey", "deleteKey")),
    "createUserInvites": ("/0/id", "inviteId", ("getUserInvite", "deleteUserInvite", "resendUserInvite")),
    "createWebhook": (
        "/endpointId",
        "endpointId",
        ("getWebhook", "updateWebhook", "deleteWebhook", "testWebhook", "rotateWebhookSecret"),
    ),
    "listTailnetDevices": (
        "/devices/0/nodeId",
        "deviceId",
        ("getDevice", "deleteDevice", "setDeviceName", "setDeviceTags", "listDeviceRoutes", "setDeviceIp"),
    ),
    "listUsers": ("/users/1/id", "userId", ("getUser", "suspendUser", "restoreUser", "deleteUser")),
}


def linked() -> dict[str, Any]:
    """The description with these links in it, as OpenAPI writes them, and the token's own tailnet named."""
    described = copy.deepcopy(document())
    described["paths"] = {path.replace("{tailnet}", "-"): one for path, one in described["paths"].items()}
    for _, _, operation in operations(described):
        places = operation.get("parameters", [])
        operation["parameters"] = [one for one in places if one["name"] != "tailnet"]
        if operation["operationId"] in LINKS:
            pointer, parameter, followers = LINKS[operation["operationId"]]
            named = {f"path.{parameter}": f"$response.body#{pointer}"}
            operation["responses"]["200"]["links"] = {
                name: {"operationId": name, "parameters": named} for name in followers
            }
    return described


def scenario(caller: Caller, schema: Any, followed: set[str]) -> Any:
    """Calls that follow from one another: what one makes, others ask for, change, delete.

    ``followed`` becomes the names of the operations that succeeded so.
    """

    class Scenario(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            self._transaction = transaction.atomic()
            self._transaction.__enter__()

        def teardown(self) -> None:
            transaction.set_rollback(True)
            self._transaction.__exit__(None, None, None)

        def step(self, input: Any) -> Any:
            caller.fill(input.case, caller.home)
            if (
                name_of(input.case) == "createKey"
            ):  # a client: other keys are still shown once they were revoked
                input.case.body = {"keyType": "client", "scopes": ["oauth_keys:read"]}
            done = super().step(input)
            if input.transition is not None and input.is_applied and done.response.status_code == 200:
                followed.add(name_of(input.case))
            return done

        def call(self, case: schemathesis.Case, **options: Any) -> Any:
            return case.call(headers=caller.headers)

        def after_call(self, response: Any, case: schemathesis.Case) -> None:
            super().after_call(response, case)
            caller.look(case, response)

        def validate_response(
            self, response: Any, case: schemathesis.Case, *args: Any, **options: Any
        ) -> None:
            case.validate_response(
                response,
                headers=caller.headers,
                recorder=self.recorder,
                excluded_checks=[CHECKS.get_one("ignored_auth")],  # looked at above, for each operation
            )

    return Scenario


@pytest.mark.long
@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize("name", [Role.OWNER.value, CLIENT])
def test_what_follows_from_a_call(name: str, callers: Callable[[str, int], Caller]) -> None:
    """What was made is there, and what was deleted is not."""
    followed: set[str] = set()
    schema = description(1, linked(), undoes=False, stateful={"inference": {"algorithms": []}})
    scenario(callers(name, 0), schema, followed).run(
        settings=settings(
            max_examples=200,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
    )
    assert followed == {follower for _, _, followers in LINKS.values() for follower in followers}
