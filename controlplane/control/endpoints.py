"""What is asked outside Noise, as plain HTTP: the server's key, probes, foreign relays' questions."""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from accounts.errors import LimitExceeded
from accounts.limits import address_of, check_limit, count_attempt
from controlplane.services.serverkeys import noise_public
from controlplane.snapshots import is_served_key
from wire.codec import decode_object
from wire.errors import WireError
from wire.fields import lower_names, string
from wire.keys import MachinePublic, NodePublic

CHALLENGE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
MAX_QUESTION_BYTES = 4096
QUESTION_LIMIT = "verify"
MAX_QUESTIONS_PER_MINUTE = 6000  # of one address: a relay to which everybody comes back at once


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


@csrf_exempt
@require_POST
def verify(request: HttpRequest) -> HttpResponse:
    """``POST /verify``: a foreign relay (derper's ``--verify-client-url``) asks whether to serve a node key.

    Source: tailscale tailcfg/derpmap.go (DERPAdmitClientRequest), derp/derpserver.
    """
    address = address_of(request)
    try:
        check_limit(QUESTION_LIMIT, address, limit=MAX_QUESTIONS_PER_MINUTE)
    except LimitExceeded as error:
        return HttpResponse(str(error), status=429, headers={"Retry-After": str(error.retry_after)})
    count_attempt(QUESTION_LIMIT, address)
    body = request.read(MAX_QUESTION_BYTES + 1)
    try:
        if len(body) > MAX_QUESTION_BYTES:
            raise WireError("the question is too long")
        node_key = NodePublic.parse(string(lower_names(decode_object(body)), "nodepublic"))
    except WireError as error:
        return HttpResponse(str(error), status=400, content_type="text/plain; charset=utf-8")
    return JsonResponse({"Allow": is_served_key(str(node_key))})
