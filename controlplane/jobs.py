"""Periodic work: one table of tasks, run by a loop in the web process, or by Celery's worker and beat.

Each task is an idempotent sweep over rows that are due and holds a lease row while it runs, so running it
twice, late, or in two places at once changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from importlib import import_module

from channels.db import database_sync_to_async

logger = logging.getLogger("trenza.jobs")

FIRST_SECONDS = 5.0  # after the start


@dataclass(frozen=True, slots=True)
class Job:
    """A Celery task by its dotted name, and how often it runs."""

    task: str
    every_seconds: float


JOBS = (
    Job("nodes.tasks.expire_due", 10),
    Job("nodes.tasks.delete_inactive_ephemeral", 20),
    Job("nodes.tasks.clean_logins", 600),
    Job("nodes.tasks.forget_ssh_checks", 3600),
    Job("nodes.tasks.rotate_due", 60),
    Job("nodes.tasks.clear_clones", 20),
    Job("nodes.tasks.delete_expired_attributes", 10),
    Job("accounts.tasks.deliver_outbox", 5),
    Job("accounts.tasks.clean_outbox", 3600),
    Job("accounts.tasks.clean_access_tokens", 600),
    Job("controlplane.tasks.tell_of_ending_keys", 600),
    Job("controlplane.tasks.mail_what_waits", 30),
    Job("controlplane.tasks.mail_what_ends", 600),
    Job("controlplane.tasks.forget_old_flows", 1800),
    Job("accounts.tasks.clean_sign_in_links", 3600),
)


def run_task(name: str) -> None:
    """Run one Celery task's function here, in this thread."""
    module, _, function = name.rpartition(".")
    getattr(import_module(module), function)()


def _import_all() -> None:
    """One after another: threads that import Celery at the same moment find it half made."""
    for job in JOBS:
        import_module(job.task.rpartition(".")[0])


async def run_jobs() -> None:
    """The embedded loop: every job when it is due, none held up by another that takes its time."""
    await asyncio.to_thread(_import_all)
    async with asyncio.TaskGroup() as running:
        for job in JOBS:
            running.create_task(_repeat(job))


async def _repeat(job: Job) -> None:
    """Run a job for ever; one that fails is logged and tried again next time."""
    loop = asyncio.get_running_loop()
    due = loop.time() + min(job.every_seconds, FIRST_SECONDS)
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        due = loop.time() + job.every_seconds
        try:
            # This one drops a connection that has broken; else a restarted PostgreSQL would end all jobs.
            await database_sync_to_async(run_task, thread_sensitive=False)(job.task)
        except Exception:
            logger.exception("job %s failed; it runs again in %.0f s", job.task, job.every_seconds)
