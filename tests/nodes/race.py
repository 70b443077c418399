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

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup(set_prefix=False)

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from accounts.tenancy import scope  # noqa: E402
from nodes.models import Node, PreAuthKey  # noqa: E402
from nodes.services.registration import RegistrationRequest, answer_registration  # noqa: E402
from tests.accounts import factories as people  # noqa: E402
from tests.nodes import factories  # noqa: E402

HOLDERS = 64


def race(text: str, outcomes: Counter[str]) -> None:
    """``HOLDERS`` machines use one key at the same moment."""
    start = threading.Barrier(HOLDERS)
    lock = threading.Lock()

    def hold() -> None:
        machine, address = factories.machine(), secrets.token_hex(8)
        request = RegistrationRequest(machine=machine, auth_key=text, client_address=address)
        start.wait()
        try:
            outcome = answer_registration(request=request).outcome.value
        except Exception as error:
            outcome = repr(error)
        finally:
            connections.close_all()
        with lock:
            outcomes[outcome] += 1

    threads = [threading.Thread(target=hold) for _ in range(HOLDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(keys: int) -> None:
    call_command("migrate", interactive=False, verbosity=0)
    tailnet, owner = people.tailnet()
    outcomes: Counter[str] = Counter()
    for _ in range(keys):
        race(factories.auth_key(tailnet, owner), outcomes)
    with scope(tailnet=tailnet):
        nodes = list(Node.objects.values_list("ipv4", "ipv6", "name"))
        uses = list(PreAuthKey.objects.values_list("uses", flat=True))
    distinct = [len(set(column)) for column in zip(*nodes, strict=True)]
    print(json.dumps({"nodes": len(nodes), "distinct": distinct, "uses": uses, "outcomes": outcomes}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
