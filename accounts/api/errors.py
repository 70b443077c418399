"""How the API refuses: always ``{"message": …}``, since its clients read every answer as JSON."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.http.request import HttpRequest, RawPostDataException
from django.http.response import JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from accounts.errors import ApplicationError, LimitExceeded

logger = logging.getLogger("trenza.api")

NOTHING_HERE = "there is nothing at this address"
BROKEN = "the server failed to answer this: its log says why"


class TooLarge(exceptions.APIException):
    """A body over its bound."""

    status_code = 413
    default_detail = "the body is too large"


def answer(error: Exception, context: dict[str, Any]) -> Response:
    """The answer to whatever a view raised (DRF's ``EXCEPTION_HANDLER``)."""
    set_rollback()
    if isinstance(error, ApplicationError):
        return _response(error.status, str(error), _retry(error))
    if isinstance(error, Http404):
        return _response(404, NOTHING_HERE)
    if isinstance(error, PermissionDenied):
        return _response(403, "this is not for you")
    if isinstance(error, RawPostDataException):
        return _response(400, "the body cannot be read")
    if isinstance(error, exceptions.APIException):
        headers = {"WWW-Authenticate": header} if (header := getattr(error, "auth_header", "")) else {}
        return _response(error.status_code, sentence(error.detail), headers)
    logger.error("%s failed", context["request"].path, exc_info=error)
    return _response(500, BROKEN)


def _retry(error: ApplicationError) -> dict[str, str]:
    return {"Retry-After": str(error.retry_after)} if isinstance(error, LimitExceeded) else {}


def _response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response({"message": message}, status=status, headers=headers)


def sentence(detail: Any) -> str:
    """What DRF says as lists and objects, as one line: ``tags: at most 20; name: missing``."""
    if isinstance(detail, dict):
        return "; ".join(
            sentence(value) if key == "non_field_errors" else f"{key}: {sentence(value)}"
            for key, value in detail.items()
            if value
        )
    if isinstance(detail, list):
        return ", ".join(sentence(value) for value in detail if value)
    return str(detail)


@csrf_exempt
def nothing_here(request: HttpRequest, rest: str = "") -> JsonResponse:
    """For every address under the API's that is none."""
    return JsonResponse({"message": NOTHING_HERE}, status=404)
