"""Whether what the server answers is what its description says."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator

from controlplane.api.openapi import document, operations


@cache
def _answers() -> dict[tuple[str, str], tuple[re.Pattern[str], dict[str, Any]]]:
    """Of each operation a pattern of its path, and its answers' descriptions."""
    found = {}
    for path, method, operation in operations(document()):
        pattern = re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))
        found[path, method.upper()] = (pattern, operation["responses"])
    return found


@cache
def _validator(reference: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": reference, "components": document()["components"]})


def wrong(method: str, path: str, status: int, value: Any) -> list[str]:
    """What of an answer is not as described; an operation or status that is not described is all wrong."""
    plain = urlsplit(path).path
    fitting = [
        (template.count("{"), responses)
        for (template, known), (pattern, responses) in _answers().items()
        if known == method and pattern.fullmatch(plain)
    ]
    if not fitting:
        return [f"{method} {plain} is not described"]
    _, responses = min(fitting, key=lambda one: one[0])
    if str(status) not in responses:
        return [f"status {status} of {method} {plain} is not described"]
    schema = responses[str(status)]["content"]["application/json"]["schema"]
    validator = (
        _validator(schema["$ref"])
        if set(schema) == {"$ref"}
        else Draft202012Validator(schema | {"components": document()["components"]})
    )
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]
