"""Periodic work in the web process: every job by its own clock."""

from __future__ import annotations

import asyncio
import threading

import pytest

from controlplane import jobs
from controlplane.jobs import Job

GENEROUS = 30.0


async def test_a_job_that_hangs_or_fails_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, ran = threading.Event(), threading.Semaphore(0)

    def run(name: str) -> None:
        name = name.rpartition(".")[2]
        if name == "hangs":
            go_on.wait(GENEROUS)
        elif name == "fails":
            raise ValueError("a job that failed")
        else:
            ran.release()

    monkeypatch.setattr(jobs, "run_task", run)
    monkeypatch.setattr(
        jobs, "JOBS", tuple(Job(f"controlplane.jobs.{name}", 0.01) for name in ("hangs", "fails", "works"))
    )
    running = asyncio.create_task(jobs.run_jobs())
    try:
        for _round in range(3):
            assert await asyncio.to_thread(ran.acquire, timeout=GENEROUS)
        assert not running.done()
    finally:
        go_on.set()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
