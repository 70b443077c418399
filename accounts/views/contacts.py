"""The page behind the link that verifies a contact's address."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.errors import Gone
from accounts.limits import address_of, check_limit, count_attempt
from accounts.pages import public_view
from accounts.services.contacts import find_contact, verify_contact

LIMIT = "verify-contact"
MAX_FAILED = 20  # a minute, from one address


@never_cache
@require_http_methods(["GET", "POST"])
@public_view
def verify(request: HttpRequest, token: str) -> HttpResponse:
    """Say what is confirmed; POST confirms it (programs that look into mail follow links). Used, old: 410."""
    address = address_of(request)
    check_limit(LIMIT, address, limit=MAX_FAILED)
    try:
        found = verify_contact(token=token) if request.method == "POST" else find_contact(token=token)
    except Gone:
        count_attempt(LIMIT, address)
        return render(request, "accounts/contact_gone.html", status=410)
    context = {"contact": found, "tailnet": found.tailnet, "done": request.method == "POST"}
    return render(request, "accounts/contact.html", context)
