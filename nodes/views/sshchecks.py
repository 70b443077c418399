"""The page on which a person shows that an SSH session is theirs."""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.errors import Gone
from accounts.freshness import sign_in_again, signed_in_at
from accounts.models import User
from accounts.pages import panel_view
from nodes.models import SSHCheck
from nodes.services import sshchecks


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def check(request: HttpRequest, token: str) -> HttpResponse:
    """Who wants in where, as whom; POST lets them in, turns them away, or has the person sign in anew."""
    try:
        found = sshchecks.own_check(token=token, user=cast(User, request.user))
        if request.method == "POST":
            return _answer(request, found)
    except Gone:
        return render(request, "nodes/ssh_check_gone.html", status=410)
    return _ask(request, found)


def _ask(request: HttpRequest, found: SSHCheck, status: int = 200) -> HttpResponse:
    context = {"check": found, "is_fresh": signed_in_at(request) >= found.created}
    return render(request, "nodes/ssh_check.html", context, status=status)


def _answer(request: HttpRequest, found: SSHCheck) -> HttpResponse:
    answer = request.POST.get("answer")
    if answer == "again":
        return sign_in_again(request, request.path)
    if answer == "refuse":
        sshchecks.turn_away(check=found)
    elif answer == "allow" and signed_in_at(request) >= found.created:
        sshchecks.let_in(check=found, signed_in_at=signed_in_at(request))
    else:
        return _ask(request, found, status=409)
    return render(request, "nodes/ssh_check_done.html", {"check": found, "refused": answer == "refuse"})
