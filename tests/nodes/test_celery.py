"""The same task functions in the web worker's loop, and under a real Celery worker and beat on Redis."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from controlplane.jobs import JOBS
from tests.controlplane.serving import CHECKOUT, Serve
from tests.controlplane.test_scaled import running_redis
from tests.nodes.test_databases import INNER

PATIENCE_SECONDS = 120
pytestmark = pytest.mark.skipif(INNER in os.environ, reason="these run a server of their own")
# A device whose key has run out, and an ephemeral one that has not been seen for an hour; the sweep that
# looks for such devices has been run by one process (the first argument) all along, or it would give the
# device time. Prints the devices once they are as the sweeps leave them, or when patience (the second) ends.
DUE = """
import django, json, sys, time
django.setup(set_prefix=False)
from datetime import timedelta
from django.utils import timezone
from accounts.models import Lease, Membership
from accounts.roles import Role
from accounts.selectors import tailnet_by_name
from accounts.tenancy import scope
from nodes.describe import describe_device_with_state
from nodes.models import Node
from nodes.selectors import nodes
from nodes.services.registration import RegistrationRequest, answer_registration
from tests.nodes import factories

def devices():
    found = [describe_device_with_state(one, base_domain="", now=timezone.now()) for one in nodes()]
    return [[one["hostname"], one["state"]] for one in found]

tailnet, end = tailnet_by_name("default"), time.monotonic() + float(sys.argv[2])
with scope(tailnet=tailnet):
    owner = Membership.objects.get(role=Role.OWNER).user
    for hostname, ephemeral in (("laptop", False), ("guest", True)):
        key = factories.auth_key(tailnet, owner, preauthorized=True, ephemeral=ephemeral)
        request = RegistrationRequest(machine=factories.machine(hostname), auth_key=key)
        assert answer_registration(request=request).node is not None
    assert sorted(devices()) == [["guest", "active"], ["laptop", "active"]], devices()
    now, hour = timezone.now(), timedelta(hours=1)
    Node.objects.filter(ephemeral=False).update(key_expiry=now - timedelta(seconds=1))
    Node.objects.filter(ephemeral=True).update(last_login=now - hour, last_seen=now - hour)
    held = {"holder": sys.argv[1], "since": now - hour, "expires": now + hour}
    Lease.objects.update_or_create(name="nodes.ephemeral", defaults=held)
    while devices() != [["laptop", "expired"]] and time.monotonic() < end:
        time.sleep(0.2)
    print(json.dumps(devices()))
"""


def check_sweeps(server: Serve, pid: int, log: Path) -> None:
    """Make devices due; process ``pid`` expires the one and deletes the other."""
    said = server.script(DUE, f"{socket.gethostname()}:{pid}", str(PATIENCE_SECONDS))
    assert json.loads(said) == [["laptop", "expired"]], log.read_text()


def test_the_web_worker_does_the_work_when_there_is_no_other(tmp_path: Path) -> None:
    server = Serve(tmp_path / "data")
    server.prepare()
    server.start()
    try:
        (worker,) = server.web_workers()
        check_sweeps(server, worker, server.data / "serve.log")
    finally:
        server.stop()


@contextmanager
def celery(server: Serve, log: Path) -> Iterator[int]:
    """A worker and a beat; gives the worker's process."""
    program = [sys.executable, "-m", "celery", "-A", "controlplane.celery"]
    worker = [*program, "worker", "--pool=solo", "--loglevel=INFO"]
    beat = [*program, "beat", "--loglevel=INFO", f"--schedule={log.with_name('beat')}"]
    with ExitStack() as stack:
        file = stack.enter_context(log.open("ab"))
        processes = []
        for command in (worker, beat):
            process = subprocess.Popen(
                command, env=server.environment, cwd=CHECKOUT, stdout=file, stderr=file
            )
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            processes.append(process)
        yield processes[0].pid
        assert [process.poll() for process in processes] == [None, None], log.read_text()


@pytest.mark.needs("redis")
def test_a_real_worker_does_the_same_work(tmp_path: Path) -> None:
    with running_redis(tmp_path) as (url, _):
        server = Serve(tmp_path / "data", REDIS_URL=url)
        server.prepare()
        with celery(server, tmp_path / "log") as worker:
            check_sweeps(server, worker, tmp_path / "log")


def test_every_job_is_a_celery_task_and_is_in_the_beats_schedule() -> None:
    from controlplane.celery import app

    app.loader.import_default_modules()
    for job in JOBS:
        assert job.task in app.tasks
        assert app.conf.beat_schedule[job.task]["schedule"] == job.every_seconds
