"""What the control protocol asks outside Noise, as plain HTTP: the server's key, probes, refusals."""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from controlplane.services.serverkeys import noise_public
from wire.keys import MachinePublic

CHALLENGE = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@require_safe
def key(request: HttpRequest) -> HttpResponse:
    """``GET /key?v=CAPVER``: the Noise static key. Both members are needed by some official clients."""
    if not request.GET.get("v", "").isdigit():
        return HttpResponse("the parameter v must be the client's capability version", status=400)
    return JsonResponse({"legacyPublicKey": str(MachinePublic.zero()), "publicKey": str(noise_public())})


@csrf_exempt
def ts2021_without_upgrade(request: HttpRequest) -> HttpResponse:
    """``/ts2021`` that reached Django: the Upgrade was missing, unknown, or eaten by a proxy."""
    return HttpResponse(
        "this address speaks the control protocol; the request had no usable Upgrade header. If a proxy "
        "stands in front, let it pass Upgrade.\n",
        status=400,
        content_type="text/plain; charset=utf-8",
    )


@require_safe
def generate_204(request: HttpRequest) -> HttpResponse:
    """Captive-portal probe: 204, answering the client's challenge when it sends one."""
    response = HttpResponse(status=204)
    challenge = request.headers.get("X-Tailscale-Challenge", "")
    if CHALLENGE.fullmatch(challenge):
        response["X-Tailscale-Response"] = f"response {challenge}"
    return response
