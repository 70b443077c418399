"""A person's sign-ins on all their browsers: kept, listed, ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django.utils import timezone

from accounts.actors import Actor
from accounts.errors import NotFound
from accounts.limits import NO_ADDRESS, address_of
from accounts.models import User
from accounts.services import audit

MAX_USER_AGENT = 200  # what its column holds
SEEN_KEY = "seen"
SIGNED_IN_KEY = "signed_in"  # in the session: when the person signed in
SEEN_EVERY = timedelta(minutes=15)  # how exactly the list says when a browser was last here


def keep_session(sender: Any, request: HttpRequest, user: User, **more: Any) -> None:
    """Note a sign-in (Django's signal ``user_logged_in``): where from, with what, when."""
    now, session = timezone.now(), request.session
    session[SEEN_KEY] = session[SIGNED_IN_KEY] = now.timestamp()
    if session.session_key is None:
        session.save()
    kept = {
        "user_id": user.pk,
        "ip": address_of(request) or NO_ADDRESS,
        "user_agent": request.META.get("HTTP_USER_AGENT", "")[:MAX_USER_AGENT],
        "created_at": now,
        "last_seen_at": now,
    }
    UserSession.objects.update_or_create(session_key=session.session_key, defaults=kept)


def see_session(*, session: Any, now: datetime | None = None) -> None:
    """Note that a session is in use, at most every quarter of an hour."""
    now = now or timezone.now()
    seen = session.get(SEEN_KEY)
    if seen is not None and now.timestamp() - seen < SEEN_EVERY.total_seconds():
        return
    session[SEEN_KEY] = now.timestamp()
    UserSession.objects.filter(session_key=session.session_key).update(last_seen_at=now)


def sessions_of(*, user: User) -> Sequence[UserSession]:
    """The sessions that still live, the one used last first; those that have ended are cleared away."""
    found = list(UserSession.objects.filter(user_id=user.pk).order_by("-last_seen_at"))
    keys = [one.session_key for one in found]
    live = Session.objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    living = set(live.values_list("session_key", flat=True))
    UserSession.objects.filter(pk__in=[one.pk for one in found if one.session_key not in living]).delete()
    return [one for one in found if one.session_key in living]


def session_of(*, user: User, pk: int) -> UserSession:
    """One of the person's own sessions."""
    session = UserSession.objects.filter(user_id=user.pk, pk=pk).first()
    if session is None:
        raise NotFound("there is no such session")
    return session


def end_session(*, user: User, pk: int, by: Actor) -> None:
    """Sign one browser out."""
    _end(user, [session_of(user=user, pk=pk)], by)


def end_other_sessions(*, user: User, session_key: str | None, by: Actor) -> int:
    """Sign every browser out but the one with this session; returns how many."""
    return _end(user, list(UserSession.objects.filter(user_id=user.pk).exclude(session_key=session_key)), by)


def _end(user: User, sessions: Sequence[UserSession], by: Actor) -> int:
    for session in sessions:
        session.end()
    if sessions:
        details = "of another browser" if len(sessions) == 1 else f"of {len(sessions)} other browsers"
        audit.record_of_person(user=user, by=by, action="LOGOUT", details=details)
    return len(sessions)


def record_sign_out(*, user: Any) -> None:
    """Say in the audit log that a person signed out here."""
    if isinstance(user, User):
        audit.record_of_person(user=user, by=Actor.person(user), action="LOGOUT")
