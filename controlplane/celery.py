"""The Celery application: ``celery -A controlplane.celery worker`` and ``… beat`` when scaled."""

from __future__ import annotations

import os

from celery import Celery

from controlplane.jobs import JOBS

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

app = Celery("trenza")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {job.task: {"task": job.task, "schedule": job.every_seconds} for job in JOBS}
