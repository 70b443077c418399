"""The way in, and what machines download to become a device."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.views.decorators.http import require_safe

from controlplane.env import environment
from controlplane.services import downloads

RETRY_SECONDS = 5


@require_safe
def admin(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Official clients print ``<URL>/admin/…`` while they wait for approval."""
    return redirect("/approvals")


# --- downloads: public, machines fetch them before they belong to anybody --------------------------------


@require_safe
def install_script(request: HttpRequest) -> HttpResponse:
    """The script that installs Trenza's client from this server."""
    text = render_to_string("download/install.sh", downloads.script_context(environment()))
    return HttpResponse(text, content_type="text/x-shellscript; charset=utf-8")


@require_safe
def download_index(request: HttpRequest) -> HttpResponse:
    """The wheels as pip's ``--find-links`` reads them."""
    names = downloads.wheel_names(environment().data)
    response = render(request, "download/wheels.html", {"names": names})
    if not names:
        return _not_built()
    return response


@require_safe
def download_file(request: HttpRequest, name: str, folder: str = "") -> HttpResponse:
    """One file that ``builddownloads`` made."""
    try:
        content = downloads.read_file(environment().data, f"{folder}{name}")
    except FileNotFoundError:
        if not downloads.is_built(environment().data):
            return _not_built()
        raise Http404 from None
    response = HttpResponse(content, content_type=downloads.content_type(name))
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _not_built() -> HttpResponse:
    response = HttpResponse(
        "the server is still preparing its client; try again in a few seconds\n", status=503
    )
    response["Content-Type"] = "text/plain; charset=utf-8"
    response["Retry-After"] = str(RETRY_SECONDS)
    return response
