"""The base of the API's views, and :func:`operation`, by which each says what it needs, takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import wraps
from inspect import getdoc
from typing import Any, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import translation
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api import errors
from accounts.api.authentication import TokenAuthentication
from accounts.api.callers import REFUSED, Caller
from accounts.api.values import Closed, JsonParser, JsonRenderer, Text, checked, parameters
from accounts.errors import Forbidden, NotFound
from accounts.limits import check_limit, count_attempt
from accounts.tenancy import scope

OWN = "-"  # names the token's tailnet, whichever it is
CALLS, MAX_CALLS = "api-calls", 600  # requests a minute, of one token
NO_TOKEN = "the API wants a token: in the header Authorization, after Bearer or as the user of Basic"  # noqa: S105
ANY_OF = "this token includes none of {scopes}"

Serializer = type[serializers.BaseSerializer[Any]]


class Nothing(Closed):
    """An empty object: it was done."""


class Refusal(Closed):
    """Why it was not done."""

    message = Text(help_text="For people.")


class ApiView(APIView):
    """One address. The scope of the token's tailnet is open while its methods run."""

    authentication_classes = [TokenAuthentication]
    permission_classes = []
    parser_classes = [JsonParser]
    renderer_classes = [JsonRenderer]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with translation.override("en"), ExitStack() as self._scope:
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not isinstance(request.user, Caller):
            raise NotAuthenticated(NO_TOKEN)
        caller = self.caller = request.user
        check_limit(CALLS, caller.token.public_id, limit=MAX_CALLS)
        count_attempt(CALLS, caller.token.public_id)
        self._scope.enter_context(scope(tailnet=caller.tailnet))
        if kwargs.get("tailnet", OWN) not in (OWN, caller.tailnet.name, str(caller.tailnet.pk)):
            raise NotFound("there is no such tailnet, or this token is not for it")
        if "\0" in request.path:  # PostgreSQL takes none, and nothing is called so
            raise NotFound(errors.NOTHING_HERE)

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, NotAuthenticated) or getattr(exc, "status_code", 0) == 401:
            cast(Any, exc).auth_header = TokenAuthentication().authenticate_header(self.request)
        response = errors.answer(exc, self.get_exception_handler_context())
        response.exception = True
        return response


Handler = Callable[..., Any]


def operation(
    name: str,
    *,
    about: str,
    scope: str = "",
    any_of: Sequence[str] = (),
    of_person: bool = False,
    body: Serializer | None = None,
    query: type[serializers.Serializer[Any]] | None = None,
    answer: Any = Nothing,
    example: Mapping[str, Any] | Sequence[Any] | None = None,
    request: Any = None,
    answers: Mapping[Any, Any] | None = None,
) -> Callable[[Handler], Handler]:
    """One method of an address. The handler gets ``self`` and the path's values, less ``tailnet``.

    ``scope`` is what the token must include; where it depends on what is asked for, ``any_of`` names those of
    which it needs one, and the handler looks itself which. ``of_person``: it may be about what is the
    person's own, so that their role in the token's tailnet does not matter here. ``body`` and ``query`` check
    the request and become arguments of these names. What the handler returns is the answer, in the shape of
    ``answer``; ``example`` is a body for the documentation, which shows the handler's docstring, too. A
    handler that reads its body itself describes it by ``request``, its schemas by media type; ``answers`` are
    described beside the usual ones, or in their place: by status, or by status and media type.
    """
    scopes = (scope,) if scope else tuple(any_of)
    refusal = REFUSED.format(scope=scope) if scope else ANY_OF.format(scopes=", ".join(any_of))

    def decorate(handler: Handler) -> Handler:
        @extend_schema(
            operation_id=name,
            summary=about,
            description="\n\n".join(filter(None, (getdoc(handler), _needs(scopes)))) or None,
            request={"application/json": body} if body is not None else request,
            parameters=[query] if query is not None else None,
            responses={200: answer, (400, "application/json"): Refusal} | _REFUSALS | dict(answers or {}),
            examples=[OpenApiExample(name, value=example, request_only=True)] if example is not None else [],
        )
        @wraps(handler)
        def wrapped(self: ApiView, request: Request, **values: Any) -> HttpResponseBase:
            values.pop("tailnet", None)
            if scopes and not any(map(self.caller.includes if of_person else self.caller.has, scopes)):
                raise Forbidden(refusal)
            if query is not None:
                values["query"] = checked(query, parameters(query, request.query_params))
            if body is not None:
                values["body"] = checked(body, request.data)
            found = handler(self, **values)
            return found if isinstance(found, HttpResponseBase) else Response(found)

        cast(Any, wrapped).scopes = scopes
        return wrapped

    return decorate


def _needs(scopes: Sequence[str]) -> str:
    named = [f"`{one}`" for one in scopes]
    if len(named) < 2:
        return f"Needs the scope {named[0]}." if named else ""
    return f"Needs one of the scopes {', '.join(named[:-1])} and {named[-1]}, by what it is about."


_REFUSALS: dict[Any, Any] = dict.fromkeys((401, 403, 404, 409, 413, 429), Refusal)
