"""Many holders of one-off keys at once, on the database that the environment names; prints one JSON line.

Run as a process of its own (``python -m tests.nodes.race``): threads need a database outside a test's memory.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import cycle

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup(set_prefix=False)

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from accounts.actors import Actor  # noqa: E402
from accounts.errors import ApplicationError  # noqa: E402
from accounts.models import Membership  # noqa: E402
from accounts.roles import Role  # noqa: E402
from accounts.services.people import suspend_member  # noqa: E402
from accounts.services.signinlink import create_link, use_link  # noqa: E402
from accounts.tenancy import scope  # noqa: E402
from nodes.models import Node, PreAuthKey  # noqa: E402
from nodes.services.logins import begin_login, confirm_login  # noqa: E402
from nodes.services.registration import RegistrationRequest, answer_registration  # noqa: E402
from tests.accounts import factories as people  # noqa: E402
from tests.nodes import factories  # noqa: E402

HOLDERS = 64


def at_once(act: Callable[[], str]) -> Counter[str]:
    """``HOLDERS`` threads do the same at the same moment; how often each answer was given."""
    start, lock = threading.Barrier(HOLDERS), threading.Lock()
    answers: Counter[str] = Counter()

    def run() -> None:
        start.wait()
        try:
            answer = act()
        except ApplicationError as error:
            answer = error.code
        except Exception as error:
            answer = repr(error)
        finally:
            connections.close_all()
        with lock:
            answers[answer] += 1

    threads = [threading.Thread(target=run) for _ in range(HOLDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def use_key(text: str) -> str:
    """One machine's registration with the key."""
    machine, address = factories.machine(), secrets.token_hex(8)
    request = RegistrationRequest(machine=machine, auth_key=text, client_address=address)
    return answer_registration(request=request).outcome.value


def race_for_a_login() -> Counter[str]:
    """Everybody confirms the same pending login."""
    tailnet, owner = people.tailnet()
    pending = begin_login(machine=factories.machine()).login
    return at_once(lambda: confirm_login(pending=pending, user=owner, tailnet=tailnet).state)


def race_for_a_link() -> Counter[str]:
    """Everybody opens the same sign-in link."""
    link = create_link(user=people.person())
    return at_once(lambda: use_link(token=link.token).user.theme)


def race_of_owners() -> int:
    """Two owners are suspended by everybody at once; how many active owners are left."""
    tailnet, owner = people.tailnet()
    other = people.member(tailnet, Role.OWNER)
    with scope(tailnet=tailnet):
        both = cycle([Membership.objects.get(user=owner), other])
    by = Actor.command()
    at_once(lambda: suspend_member(membership=next(both), by=by).status)
    with scope(tailnet=tailnet):
        return Membership.objects.filter(role=Role.OWNER, status=Membership.Status.ACTIVE).count()


def main(keys: int) -> None:
    call_command("migrate", interactive=False, verbosity=0)
    tailnet, owner = people.tailnet()
    outcomes: Counter[str] = Counter()
    for _ in range(keys):
        text = factories.auth_key(tailnet, owner)
        outcomes += at_once(partial(use_key, text))
    with scope(tailnet=tailnet):
        nodes = list(Node.objects.values_list("ipv4", "ipv6", "name"))
        uses = list(PreAuthKey.objects.values_list("uses", flat=True))
    distinct = [len(set(column)) for column in zip(*nodes, strict=True)]
    told = {"nodes": len(nodes), "distinct": distinct, "uses": uses, "outcomes": outcomes}
    races = {"login": race_for_a_login(), "link": race_for_a_link(), "owners": race_of_owners()}
    print(json.dumps(told | races))


if __name__ == "__main__":
    main(int(sys.argv[1]))
