"""The same task functions in the web worker's loop, and under a real Celery worker and beat on Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
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
JOIN = """
import django, sys
django.setup(set_prefix=False)
from nodes.services.registration import RegistrationRequest, answer_registration
from tests.nodes import factories
for key, hostname in zip(sys.argv[1::2], sys.argv[2::2]):
    request = RegistrationRequest(machine=factories.machine(hostname), auth_key=key)
    assert answer_registration(request=request).node is not None
"""
# Keys have run out, and an ephemeral device has not been seen for an hour; the sweep that looks for such
# devices has been run by one process (the argument) all along, or it would give the device another grace.
MAKE_DUE = """
import django, sys
django.setup(set_prefix=False)
from datetime import timedelta
from django.utils import timezone
from accounts.models import Lease
from accounts.tenancy import each_tailnet
from nodes.models import Node
now, hour = timezone.now(), timedelta(hours=1)
for tailnet in each_tailnet():
    Node.objects.filter(ephemeral=False).update(key_expiry=now - timedelta(seconds=1))
    Node.objects.filter(ephemeral=True).update(last_login=now - hour, last_seen=now - hour)
held = {"holder": sys.argv[1], "since": now - hour, "expires": now + hour}
Lease.objects.update_or_create(name="nodes.ephemeral", defaults=held)
"""


def python(server: Serve, code: str, *arguments: str) -> None:
    """Run Python on the server's database, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=server.environment | {"DJANGO_SETTINGS_MODULE": "controlplane.settings"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def check_sweeps(server: Serve, pid: int, log: Path) -> None:
    """Make devices due and wait until process ``pid`` has expired the one and deleted the other."""
    keys = [server.auth_key("--preapproved"), server.auth_key("--preapproved", "--ephemeral")]
    python(server, JOIN, keys[0], "laptop", keys[1], "guest")
    python(server, MAKE_DUE, f"{socket.gethostname()}:{pid}")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        devices = server.command("listnodes", "default", "--json")
        if [(device["hostname"], device["state"]) for device in devices] == [("laptop", "expired")]:
            return
        assert time.monotonic() < deadline, (devices, log.read_text())
        time.sleep(2)


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
