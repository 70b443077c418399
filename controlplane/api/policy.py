"""The policy file: as it was written or as JSON, saved, tried and previewed.

Bodies are HuJSON, whatever they are called, and are read as the text that they are: a policy keeps its
comments and its layout, byte for byte.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import orjson
from django.http import HttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.errors import TooLarge
from accounts.api.values import Choice, Closed, Number, Text, Texts
from accounts.api.views import ApiView, Refusal, operation
from controlplane.netmap.policy.check import TESTS_FAILED
from controlplane.netmap.policy.default import TEXT as DEFAULT_TEXT
from controlplane.netmap.policy.hujson import MAX_POLICY_BYTES, parse, plain
from controlplane.netmap.policy.testbench import TestFailure
from controlplane.services import policypreview
from controlplane.services.policy import (
    CurrentPolicy,
    PolicyRefused,
    current_policy,
    failures_told,
    parse_for,
    save_policy,
    snapshot_of,
)

HUJSON, JSON = "application/hujson", "application/json"
MAX_LOGIN = 320
EXAMPLE = {
    "grants": [{"src": ["autogroup:member"], "dst": ["tag:web"], "ip": ["443"]}],
    "tagOwners": {"tag:web": []},
}


class HuJSONParser(BaseParser):
    """Any body is a text in UTF-8 of at most :data:`MAX_POLICY_BYTES` bytes."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        body: bytes = stream.read(MAX_POLICY_BYTES + 1)
        if len(body) > MAX_POLICY_BYTES:
            raise TooLarge(f"a policy has at most {MAX_POLICY_BYTES} bytes")
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise PolicyRefused(f"the policy is no UTF-8: byte {error.start} is wrong") from error


class AnyAccepted(BaseContentNegotiation):
    """What is asked for by ``Accept`` the views see to themselves; refusals are JSON always."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


# --- the shapes ------------------------------------------------------------------------------------------


class PolicyFinding(Closed):
    """What is wrong, or worth a look: about one source of the policy's tests, or about all of it."""

    user = Text(help_text="Whose test failed; empty where it is about none.")
    errors = Texts(required=False, allow_null=False)  # type: ignore[assignment]
    warnings = Texts(required=False, allow_null=False)


class PolicyRefusal(Closed):
    """Why a policy was not taken, and which of its tests fail."""

    message = Text(help_text="For people.")
    data = PolicyFinding(many=True, required=False)  # type: ignore[assignment]


class PolicyValidation(Closed):
    """What was found; an empty object when it was nothing."""

    message = Text(required=False)
    data = PolicyFinding(many=True, required=False)  # type: ignore[assignment]


class PolicyQuery(Closed):
    """In which form."""

    details = Choice(
        choices=["0", "1", "false", "true"],
        default="0",
        help_text="`1`: an object with the text in Base64 (`acl`), `warnings` and `errors`.",
    )


class PreviewQuery(Closed):
    """What is asked about."""

    type = Choice(choices=[policypreview.USER, policypreview.IPPORT])
    previewFor = Text(max_length=MAX_LOGIN, help_text="A login name, or an address and port: `10.0.0.1:80`.")


class RuleMatch(Closed):
    """A rule that concerns what was asked about."""

    users = Texts(allow_null=False, help_text="Whom it lets through.")
    ports = Texts(allow_null=False, help_text="Where to.")
    postures = Texts(required=False, allow_null=False, help_text="What devices have to meet for it.")
    lineNumber = Number(help_text="Where it begins in the text.")


class PolicyPreview(Closed):
    """The rules that concern a person or a place."""

    matches = RuleMatch(many=True)
    type = Choice(choices=[policypreview.USER, policypreview.IPPORT])
    previewFor = Text()


ANY_OBJECT = {"type": "object", "additionalProperties": True}
A_POLICY = {HUJSON: {"type": "string"}, JSON: ANY_OBJECT}
# Whatever it is, the answer says what is wrong with it.
TESTS_OR_POLICY = {HUJSON: {"type": "string"}, JSON: {"description": "A policy, or a list of tests."}}
IN_BOTH_FORMS = {(200, JSON): ANY_OBJECT, (200, HUJSON): {"type": "string"}}
NOT_TAKEN = {(400, JSON): PolicyRefusal}
CHANGED_MEANWHILE = {412: Refusal}


def refusal(error: PolicyRefused) -> dict[str, Any]:
    """A refusal in the words of the public API: a text that is no HuJSON is known by its place."""
    place = "line {}, column {}".format(*error.at) if error.at is not None else ""
    told = {"message": f"{place}: {error}" if place and error.syntax else str(error)}
    data = failures_told(error.failures)
    if place and not error.syntax:
        data.append({"user": "", "errors": [f"{place}: {error}"]})
    return told | ({"data": data} if data else {})


def findings(failures: Iterable[TestFailure], warnings: Iterable[str]) -> dict[str, Any]:
    """What a trial found. Warnings alone are nothing: programs take any message for a refusal."""
    failing = failures_told(failures)
    if not failing:
        return {}
    worth_a_look = list(warnings)
    general = [{"user": "", "errors": [], "warnings": worth_a_look}] if worth_a_look else []
    return {"message": TESTS_FAILED, "data": failing + general}


# --- the addresses ---------------------------------------------------------------------------------------


class PolicyView(ApiView):
    """What the addresses of the policy have in common."""

    parser_classes = [HuJSONParser]
    content_negotiation_class = AnyAccepted

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(exc)
        if isinstance(exc, PolicyRefused):
            response.data = refusal(exc)
        return response

    @property
    def text(self) -> str:
        """The body; "" where there is none, for which no parser is asked."""
        data: Any = self.request.data
        return data if isinstance(data, str) else ""

    def told(self, current: CurrentPolicy) -> HttpResponse:
        """The policy in the form that was asked for, with its ETag."""
        headers = {"ETag": f'"{current.etag}"'}
        if HUJSON in self.request.headers.get("Accept", "").lower():
            return HttpResponse(current.text.encode(), content_type=HUJSON, headers=headers)
        return HttpResponse(orjson.dumps(plain(parse(current.text))), content_type=JSON, headers=headers)


class PolicyFileView(PolicyView):
    """``/tailnet/{tailnet}/acl``"""

    @operation(
        "getPolicyFile",
        about="Get the policy file",
        scope="policy_file:read",
        query=PolicyQuery,
        answer=ANY_OBJECT,
        answers=IN_BOTH_FORMS,
    )
    def get(self, query: dict[str, Any]) -> HttpResponse | dict[str, Any]:
        """As it was written with `Accept: application/hujson`, else as JSON. Its `ETag` goes into `If-Match`
        when it is set.
        """
        current = current_policy(self.caller.tailnet)
        if query["details"] not in ("1", "true"):
            return self.told(current)
        try:
            checked = parse_for(snapshot_of(self.caller.tailnet), current.text)
            warnings, errors = (
                list(checked.warnings),
                [f"{one.source}: {text}" for one in checked.failures for text in one.errors],
            )
        except PolicyRefused as error:
            warnings, errors = [], [str(error)]
        return {
            "acl": base64.b64encode(current.text.encode()).decode(),
            "warnings": warnings,
            "errors": errors,
        }

    @operation(
        "setPolicyFile",
        about="Set the policy file",
        scope="policy_file",
        request=A_POLICY,
        answer=ANY_OBJECT,
        answers=IN_BOTH_FORMS | NOT_TAKEN | CHANGED_MEANWHILE,
        example=EXAMPLE,
    )
    def post(self) -> HttpResponse:
        """Replaces it; an empty body brings the default back. With `If-Match` only while the policy with that
        `ETag` is in force; `"ts-default"` stands for the default. Its tests must pass.
        """
        tailnet = self.caller.tailnet
        save_policy(tailnet=tailnet, text=self.text, by=self.caller.actor, etag=self._expected())
        return self.told(current_policy(tailnet))

    def _expected(self) -> str | None:
        """The header's ETag, however quoted; proxies that compress make it a weak one."""
        given = self.request.headers.get("If-Match", "").strip()
        etag = given.removeprefix("W/").replace("\\", "").strip('"')
        return None if etag in ("", "*") else etag


class ValidateView(PolicyView):
    """``/tailnet/{tailnet}/acl/validate``"""

    @operation(
        "validateAndTestPolicyFile",
        about="Try a policy file, or tests",
        scope="policy_file:read",
        request=TESTS_OR_POLICY,
        answer=PolicyValidation,
        example=EXAMPLE,
    )
    def post(self) -> dict[str, Any]:
        """Of a policy says what would keep it from being saved; a list is tests, to be run against the policy
        in force. The status is 200 whatever is found.
        """
        try:
            return self._found()
        except PolicyRefused as error:
            return refusal(error)

    def _found(self) -> dict[str, Any]:
        text, tailnet = self.text, self.caller.tailnet
        if policypreview.is_list(text):
            failures = policypreview.run_against_saved(tailnet=tailnet, tests=text)
            return findings(failures, ())
        checked = parse_for(snapshot_of(tailnet), text if text.strip() else DEFAULT_TEXT)
        return findings(checked.failures, checked.warnings)


class PreviewView(PolicyView):
    """``/tailnet/{tailnet}/acl/preview``"""

    @operation(
        "previewRuleMatches",
        about="Preview which rules concern somebody",
        scope="policy_file:read",
        query=PreviewQuery,
        request=A_POLICY,
        answer=PolicyPreview,
        answers=NOT_TAKEN,
        example=EXAMPLE,
    )
    def post(self, query: dict[str, Any]) -> dict[str, Any]:
        """Of the policy in the body, which is not saved, those rules by which a person reaches something, or
        by which somebody reaches a port of an address.
        """
        kind, what = query["type"], query["previewFor"]
        matches = policypreview.preview_rules(
            tailnet=self.caller.tailnet, text=self.text, kind=kind, what=what
        )
        told = [
            {"users": list(one.users), "ports": list(one.ports), "lineNumber": one.line}
            | ({"postures": list(one.postures)} if one.postures else {})
            for one in matches
        ]
        return {"matches": told, "type": kind, "previewFor": what}
