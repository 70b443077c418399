"""The API's description: every address is in it, says what it needs, and holds what it promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator

from accounts.scopes import SCOPES
from controlplane.api.openapi import (
    AREA_WORDS,
    BASIC,
    BEARER,
    GROUPS,
    NO_NUL,
    OAUTH,
    PLACES,
    document,
    operations,
    scope_words,
)
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

ADDRESS = "/api/v2/openapi.json"
# What needs no token: where tokens come from, and the description itself.
OPEN = {"createAccessToken", "getDescription"}
CATCHES_THE_REST = "<path:rest>"
# Objects whose members are not known beforehand.
FREE = {"TokenRequest"}


def addresses(part: URLResolver | None = None, before: str = "") -> Iterator[str]:
    """Every address under ``/api/v2`` and ``/api/trenza``, as the description writes paths."""
    for one in (part or get_resolver()).url_patterns:
        route = before + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from addresses(one, route)
        elif (
            isinstance(one, URLPattern)
            and re.match(r"api/(v2|trenza)/", route)
            and CATCHES_THE_REST not in route
        ):
            yield "/" + re.sub(r"<\w+:(\w+)>", lambda found: f"{{{camel(found[1])}}}", route)


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def every() -> list[Any]:
    return [pytest.param(*one, id=f"{one[1]} {one[0]}") for one in operations(document())]


def test_every_address_is_described_and_nothing_else() -> None:
    assert set(document()["paths"]) == set(addresses())
    assert len(document()["paths"]) > 30


def test_it_is_made_without_a_complaint() -> None:
    reset_generator_stats()
    SchemaGenerator().get_schema(request=None, public=True)
    assert not GENERATOR_STATS, [dict(GENERATOR_STATS._warn_cache), dict(GENERATOR_STATS._error_cache)]


def test_it_is_openapi_3_1() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(document(), cls=validator.OpenAPIV31SpecValidator)


def test_its_schemas_are_json_schema() -> None:
    for name, schema in document()["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Z][A-Za-z]+", name), name


def test_operations_are_told_apart_by_their_names() -> None:
    names = [operation["operationId"] for _, _, operation in operations(document())]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z][A-Za-z]+", name), name


def test_every_operation_says_what_it_is_for() -> None:
    known = {group.name for group in GROUPS}
    for path, method, operation in operations(document()):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert len(operation["tags"]) == 1, where
        assert operation["tags"][0] in known, where
    assert {tag["name"] for tag in document()["tags"]} <= known


def test_every_operation_names_a_scope_there_is() -> None:
    for path, method, operation in operations(document()):
        where = f"{method} {path}"
        if operation["operationId"] in OPEN:
            assert "security" not in operation, where
            continue
        ways = operation["security"]
        assert {BEARER: []} in ways, where
        assert {BASIC: []} in ways, where
        scopes = [scope for way in ways for scope in way.get(OAUTH, [])]
        assert scopes, where
        assert set(scopes) <= SCOPES, where
        assert all(f"`{scope}`" in operation["description"] for scope in scopes), where
        if method == "get":
            assert all(scope.endswith(":read") for scope in scopes), where


def test_scopes_are_said_in_words() -> None:
    scheme = document()["components"]["securitySchemes"][OAUTH]["flows"]["clientCredentials"]
    assert set(scheme["scopes"]) == SCOPES
    assert scheme["tokenUrl"] in document()["paths"]
    assert all(scope_words(scope) for scope in SCOPES)
    assert set(AREA_WORDS) == {scope.removesuffix(":read") for scope in SCOPES} - {"all"}


def test_places_in_paths_are_explained() -> None:
    used = set()
    for path, method, operation in operations(document()):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                used.add(parameter["name"])
                assert parameter.get("description"), f"{method} {path}: {parameter['name']}"
                assert parameter.get("example"), f"{method} {path}: {parameter['name']}"
    assert used == set(PLACES)


def test_objects_are_closed() -> None:
    for name, schema in document()["components"]["schemas"].items():
        if schema.get("type") == "object" and name not in FREE:
            assert schema.get("additionalProperties") is not None, name


def test_answers_and_refusals_are_described() -> None:
    schemas = document()["components"]["schemas"]
    for path, method, operation in operations(document()):
        where, responses = f"{method} {path}", operation["responses"]
        assert "200" in responses, where
        for status, response in responses.items():
            assert response["description"], where
            schema = response["content"]["application/json"]["schema"]
            if status != "200":
                refusal = schemas[schema["$ref"].rpartition("/")[2]]
                assert "message" in refusal["required"], where
        assert {"400", "401", "429"} <= set(responses), where
        assert responses["429"]["headers"]["Retry-After"]["required"], where


def test_what_a_body_needs_has_an_example_that_fits() -> None:
    schemas = document()["components"]
    for path, method, operation in operations(document()):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        examples = [one["value"] for one in content.get("examples", {}).values()]
        assert examples or not operation["requestBody"].get("required"), f"{method} {path}"
        for value in examples:
            whole = content["schema"] | {"components": schemas}
            Draft202012Validator(whole).validate(value)


def test_free_text_excludes_what_no_database_keeps() -> None:
    settings = document()["components"]["schemas"]["SettingsChange"]["properties"]
    assert settings["aclsExternalLink"]["pattern"] == NO_NUL
    assert re.search(NO_NUL, "any ñ\n")
    assert not re.search(NO_NUL, "a\0b")


def test_whoever_asks_gets_it_and_asks_again_in_vain() -> None:
    answer = Client().get(ADDRESS)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == document()
    again = Client().get(ADDRESS, headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert Client().post(ADDRESS).status_code == 405


def test_it_is_in_english_for_everybody() -> None:
    document.cache_clear()
    assert Client().get("/sign-in", headers={"Accept-Language": "es"}).status_code == 200
    answer = Client().get(ADDRESS, headers={"Accept-Language": "es"})
    assert answer.json()["paths"][ADDRESS]["get"]["summary"] == "Get this description"
