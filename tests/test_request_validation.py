"""Requests that must have the form of a JSON Schema or an OpenAPI document."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.answers import reason_of, refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems

from fastgate.plugins.request_validation.documents import BadDocumentError, load_file, parse_json
from fastgate.plugins.request_validation.openapi import OpenApi
from fastgate.plugins.request_validation.schemas import EXPLAIN_BYTES, Schema

JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"

ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["item"],
    "properties": {
        "item": {"type": "string", "pattern": "^(a+)+$", "maxLength": 5000},
        "count": {"type": "integer", "minimum": 1, "maximum": 10},
        "password": {"type": "integer"},
        "mail": {"type": "string", "format": "email"},
        "tags": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
        "kin": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"$ref": "#/$defs/tree"}]},
    },
    "patternProperties": {"^(x-(a+)+)+$": {"type": "integer"}},
    "unevaluatedProperties": False,
    "$defs": {"tree": {"type": "object", "additionalProperties": {"$ref": "#/$defs/tree"}}},
}

API = """
openapi: 3.1.0
info: {title: Shop, version: "1"}
servers: [{url: "https://{env}.example/api/v1", variables: {env: {default: prod}}}]
paths:
  /pets/{id}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer, minimum: 1}}
    get:
      parameters:
        - $ref: "#/components/parameters/Limit"
        - {name: tags, in: query, schema: {type: array, items: {type: string, enum: [on, "no", "a,b"]}}}
        - {name: ids, in: query, style: pipeDelimited, explode: false,
           schema: {type: array, items: {type: integer}}}
        - {name: filter, in: query, style: deepObject, schema: {$ref: "#/components/schemas/Filter"}}
        - name: where
          in: query
          content: {application/json: {schema: {$ref: "#/components/schemas/Filter"}}}
        - {name: X-Trace, in: header, schema: {type: boolean}}
        - {name: theme, in: cookie, schema: {enum: [dark, light]}}
        - {name: Authorization, in: header, required: true, schema: {type: integer}}
      responses: {200: {description: fine}}
    put:
      requestBody: {$ref: "#/components/requestBodies/Pet"}
  /pets/mine:
    get: {parameters: [{name: must, in: query, required: true, schema: {type: string}}]}
  /pets/{id}.txt:
    get: {parameters: [{name: id, in: path, required: true, schema: {enum: [one]}}]}
  /points/{at}/{list}:
    get:
      parameters:
        - {name: at, in: path, required: true, style: matrix, explode: true,
           schema: {type: object, properties: {x: {type: integer}, y: {type: integer}}, required: [x, y]}}
        - {name: list, in: path, required: true, style: label, schema: {type: array, items: {type: integer}}}
  /upload:
    post:
      requestBody:
        content:
          image/*: {}
          text/plain: {schema: {type: string, maxLength: 5}}
components:
  parameters:
    Limit: {name: limit, in: query, schema: {type: integer, maximum: 100}}
  schemas:
    Filter: {type: object, additionalProperties: false,
             properties: {age: {type: integer}, name: {type: string}}}
    Pet:
      type: object
      required: [name]
      properties:
        name: {type: string}
        age: {type: [integer, "null"]}
        kin: {type: array, items: {$ref: "#/components/schemas/Pet"}}
        nick: {type: array, items: {type: string}}
      additionalProperties: false
  requestBodies:
    Pet:
      required: true
      content:
        application/json: {schema: {$ref: "#/components/schemas/Pet"}}
        application/x-www-form-urlencoded: {schema: {$ref: "#/components/schemas/Pet"}}
"""

API_3_0 = {
    "openapi": "3.0.3",
    "info": {"title": "x", "version": "1"},
    "paths": {
        "/old": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["id", "n"],
                                "properties": {
                                    "id": {"type": "integer", "readOnly": True},
                                    "n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
                                    "s": {"type": "string", "nullable": True},
                                },
                            }
                        }
                    }
                },
                "responses": {},
            }
        }
    },
}


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "order.json").write_text(json.dumps(ORDER))
    (folder / "api.yaml").write_text(API)
    (folder / "old.json").write_text(json.dumps(API_3_0))
    (folder / "changing.json").write_text("true")
    schema = {"schema": "order.json"}
    plugins: dict[str, dict[str, Any]] = {
        "order": {**schema, "max_depth": 20, "limit": "2MiB", "max_errors": 3},
        "optional": {**schema, "body_required": False},
        "small": {**schema, "limit": "100B"},
        "report": {**schema, "report_only": True},
        "api": {"openapi": "api.yaml", "unknown_query": "refuse"},
        "lax": {"openapi": "api.yaml", "base_path": "/lax", "unknown": "pass"},
        "old": {"openapi": "old.json"},
        "changing": {"schema": "changing.json", "check_interval": "10ms"},
    }
    with Gateway(one_route_each(module_upstream.address, "request-validation", plugins), folder) as gateway:
        yield gateway


def post(gateway: Gateway, body: Any, *lines: str, target: str = "/order", method: str = "POST") -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(gateway, target, *(lines or (JSON,)), method=method, body=raw)


def invalid(response: Any) -> list[dict[str, str]]:
    refused(response, "request-invalid")
    errors: list[dict[str, str]] = response.json()["errors"]
    assert errors
    return errors


# -- JSON Schema


@pytest.mark.parametrize(
    "body",
    [{"item": "a"}, {"item": "aaa", "count": 10, "tags": ["a", "b"], "x-a": 1}, {"item": "a", "count": 1.0},
     {"item": "a", "kin": {"x": {"y": {}}}}, {"item": "a", "mail": "a@b.example"}, b' {"item":"a"} '],
)  # fmt: skip
def test_bodies_that_match(gateway: Gateway, body: Any) -> None:
    assert post(gateway, body).status == 200
    assert post(gateway, body, "Content-Type: application/order+json; charset=UTF-8").status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""), ([], ""), ({"item": 1}, "/item"), ({"item": "b"}, "/item"), ({"item": "a", "count": 0},
        "/count"),
        ({"item": "a", "count": 10**40}, "/count"), ({"item": "a", "count": 1.5}, "/count"),
        ({"item": "a", "tags": ["x", "x"]}, "/tags"), ({"item": "a", "tags": ["x", 1]}, "/tags/1"),
        ({"item": "a", "other": 1}, ""), ({"item": "a", "x-a": "1"}, "/x-a"), ({"item": "a", "mail": "x"},
        "/mail"),
        ({"item": "a", "kin": {"x": {"a/b": 1}}}, "/kin"),
    ],
)  # fmt: skip
def test_bodies_that_do_not(gateway: Gateway, upstream: Upstream, body: Any, pointer: str) -> None:
    mark = upstream.mark()
    errors = invalid(post(gateway, body))
    assert pointer in [error["pointer"] for error in errors]
    assert {error["in"] for error in errors} == {"body"}
    assert not mark.requests


def test_no_value_comes_back_or_is_logged(gateway: Gateway) -> None:
    since = gateway.mark()
    response = post(gateway, {"item": "a", "password": "s3cret-value", "kin": "s3cret-value"})
    assert len(invalid(response)) == 2
    (record,) = gateway.wait_log(since)[:1]
    assert b"s3cret" not in response.body
    assert "s3cret" not in json.dumps(record)
    assert "/password" in record["detail"]


def test_errors_are_bounded(gateway: Gateway) -> None:
    assert len(invalid(post(gateway, {"item": "a", "tags": list(range(40))}))) == 3
    (error,) = invalid(post(gateway, {"item": "a", "tags": list(range(400))}))
    assert "too many" in error["message"]
    for error in invalid(post(gateway, {"item": "a", "y" * 5000: 1})):
        assert max(map(len, error.values())) <= 200


BAD_JSON = [
    b" ", b"{", b"{}}", b"nul", b"{'item': 'a'}", b'{"item":"a",}', b'{"item":"a"} x', b'{"item":"a"}\x00',
    b'{"item":"a","item":"b"}', b'{"item":"a","it\\u0065m":"b"}', b'{"item":"a","kin":{"x":{},"x":{}}}',
    b'{"item":"a","count":NaN}', b'{"item":"a","count":Infinity}', b'{"item":"a","count":1e999}',
    b'{"item":"a","count":' + b"1" * 5000 + b"}", b'{"item":"a","count":01}', b'{"item":"a","count":0x1}',
    b'{"item":"\xff"}', b'{"item":"\\ud800"}', b"\xef\xbb\xbf" + b'{"item":"a"}',
    '{"item":"a"}'.encode("utf-16"),
    b"[" * 900_000, b"[" * 100 + b"]" * 100, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"/*x*/{}",
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
def test_what_two_readers_could_read_in_two_ways(gateway: Gateway, upstream: Upstream, body: bytes) -> None:
    mark = upstream.mark()
    (error,) = invalid(post(gateway, body))
    assert error["pointer"] == ""
    assert not mark.requests


def test_a_body_must_be_there(gateway: Gateway) -> None:
    assert invalid(ask(gateway, "/order", method="POST"))[0]["message"] == "is required"
    assert ask(gateway, "/order").status == 200
    assert ask(gateway, "/optional", method="POST").status == 200
    assert invalid(post(gateway, {"item": 1}, target="/optional"))
    assert invalid(post(gateway, {"item": 1}, method="DELETE"))


@pytest.mark.parametrize(
    "lines",
    [("Content-Type: text/plain",), ("X: y",), (JSON, JSON), (JSON, "Content-Type: text/plain"),
     (JSON + "; charset=utf-16",), (JSON + ';CHARSET = "utf-7"',), (JSON, "Content-Encoding: gzip"),
     ("Content-Type: application/jsonx",), ("Content-Type: text/plain; application/json",)],
)  # fmt: skip
def test_bodies_that_go_around_the_check(gateway: Gateway, lines: tuple[str, ...]) -> None:
    response = post(gateway, {"item": "a"}, *lines)
    assert (response.status, reason_of(response)) == (415, "request-invalid")


def test_bodies_over_the_limit(gateway: Gateway) -> None:
    large = json.dumps({"item": "a" * 200}).encode()
    refused(post(gateway, large, target="/small"), "body-too-large")
    refused(ask(gateway, "/small", JSON, method="POST", chunks=[large]), "body-too-large")
    assert ask(gateway, "/small", JSON, method="POST", chunks=[b'{"item"', b':"a"}']).status == 200


HEAVY = [
    {"item": "a" * 4990 + "!"},
    {"item": "a", "x-" + "a" * 200_000 + "!": 1},
    {"item": "a", "tags": [str(i) for i in range(100_000)] + ["0"]},
    {"item": "a", "tags": list(range(150_000))},
    {"item": "a", "kin": list(range(200_000))},
    {"item": "a", **{f"n{i}": 1 for i in range(50_000)}},
]


@pytest.mark.parametrize("body", HEAVY, ids=range(len(HEAVY)))
def test_heavy_bodies_are_soon_refused(gateway: Gateway, body: Any) -> None:
    raw = json.dumps(body).encode()
    begin = time.perf_counter()
    assert invalid(post(gateway, raw))
    assert time.perf_counter() - begin < 2


def test_a_heavy_body_that_matches(gateway: Gateway) -> None:
    assert post(gateway, {"item": "a", "tags": [str(i) for i in range(50_000)]}).status == 200


def test_report_only_lets_pass(gateway: Gateway) -> None:
    assert post(gateway, {"item": 1}, target="/report").json()["body"] == '{"item": 1}'


def replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_a_file_that_is_replaced(gateway: Gateway) -> None:
    path = gateway.file.parent / "changing.json"
    assert post(gateway, {}, target="/changing").status == 200
    deadline = time.monotonic() + 5
    replace(path, '{"required": ["a"]}')
    while post(gateway, {}, target="/changing").status == 200:
        assert time.monotonic() < deadline
    replace(path, '{"pattern": "(?=a)"}')
    gateway.wait_stderr("fastgate: changing.json stays as it was")
    invalid(post(gateway, {}, target="/changing"))


# -- OpenAPI

PET = "/api/v1/pets/7"


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        (PET, ()), (PET + "?limit=100&tags=on&tags=no&tags=a%2Cb", ()), (PET + "?ids=1|2%7C3", ()),
        (PET + "?filter[age]=3&filter%5Bname%5D=x%20y", ()), (PET + "?where=%7B%22age%22%3A1%7D", ()),
        (PET, ("X-Trace: true",)), (PET, ("Cookie: a=b; theme=dark",)), (PET, ("Authorization: x",)),
        ("/api/v1/pets/mine?must=1", ()), ("/api/v1/pets/%6Dine?must=", ()), ("/api/v1/pets/one.txt", ()),
        ("/api/v1/points/;x=1;y=2/.1,2", ()),
    ],
)  # fmt: skip
def test_operations_that_match(gateway: Gateway, target: str, lines: tuple[str, ...]) -> None:
    response = ask(gateway, target, *lines)
    assert response.status == 200, response.body
    assert ask(gateway, target, *lines, method="HEAD").status == 200


@pytest.mark.parametrize(
    ("target", "lines", "place", "name"),
    [
        ("/api/v1/pets/0", (), "path", "id"), ("/api/v1/pets/x", (), "path", "id"),
        ("/api/v1/pets/1e3", (), "path", "id"), ("/api/v1/pets/07", (), "path", "id"),
        ("/api/v1/pets/%D9%A3", (), "path", "id"), ("/api/v1/pets/1%0A", (), "path", "id"),
        ("/api/v1/pets/two.txt", (), "path", "id"),
        ("/api/v1/pets/mine", (), "query", "must"),
        (PET + "?limit=101", (), "query", "limit"), (PET + "?limit=", (), "query", "limit"),
        (PET + "?limit=1&limit=200", (), "query", "limit"), (PET + "?limit=1&li%6Dit=200", (), "query",
        "limit"),
        (PET + "?limit=1,2", (), "query", "limit"), (PET + "?limit=%FF", (), "query", "limit"),
        (PET + "?limit=" + "9" * 2000, (), "query", "limit"), (PET + "?limit=%2B1", (), "query", "limit"),
        (PET + "?limit[$gt]=1", (), "query", "limit[$gt]"), (PET + "?Limit=1", (), "query", "Limit"),
        (PET + "?tags=a,c", (), "query", "tags"), (PET + "?tags=yes", (), "query", "tags"),
        (PET + "?ids=1,2", (), "query", "ids"), (PET + "?ids=1|x", (), "query", "ids"),
        (PET + "?filter[age]=x", (), "query", "filter"), (PET + "?filter[role]=admin", (), "query", "filter"),
        (PET + "?filter[age]=1&filter[age]=2", (), "query", "filter"), (PET + "?filter=x", (), "query",
        "filter"),
        (PET + "?where=%7B%22age%22%3A1%2C%22age%22%3A2%7D", (), "query", "where"), (PET + "?where=x", (),
        "query", "where"),
        (PET + "?extra=1", (), "query", "extra"), (PET + "?" + "&".join("a" * 1001), (), "query", ""),
        (PET, ("X-Trace: yes",), "header", "X-Trace"), (PET, ("X-Trace: true", "X-Trace: false"), "header",
        "X-Trace"),
        (PET, ("Cookie: theme=evil",), "cookie", "theme"), (PET, ("Cookie: theme=dark; theme=evil",),
        "cookie", "theme"),
        ("/api/v1/points/;x=1/.1", (), "path", "at"), ("/api/v1/points/x=1;y=2/.1", (), "path", "at"),
        ("/api/v1/points/;x=1;y=2;x=3/.1", (), "path", "at"), ("/api/v1/points/;x=1;y=2/1", (), "path",
        "list"),
        ("/api/v1/points/;x=1;y=2/.1,a", (), "path", "list"),
    ],
)  # fmt: skip
def test_parameters_that_do_not(
    gateway: Gateway, upstream: Upstream, target: str, lines: tuple[str, ...], place: str, name: str
) -> None:
    mark = upstream.mark()
    error = invalid(ask(gateway, target, *lines))[0]
    assert (error["in"], error["name"]) == (place, name)
    assert not mark.requests


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [("/api/v1/nothing", "GET", 404), ("/api/v1", "GET", 404), ("/api/v2/pets/7", "GET", 404),
     ("/api/v1/pets", "GET", 404), (PET + "/", "GET", 404), (PET + "/x", "GET", 404), ("/api/v1/PETS/7",
     "GET", 404),
     (PET, "DELETE", 405), (PET, "OPTIONS", 405)],
)  # fmt: skip
def test_what_is_no_operation(gateway: Gateway, target: str, method: str, status: int) -> None:
    response = ask(gateway, target, method=method)
    assert (response.status, reason_of(response)) == (status, "request-invalid")
    if status == 405:
        assert response.get("allow") == "GET, PUT"


def test_where_others_may_pass(gateway: Gateway) -> None:
    assert ask(gateway, "/lax/nothing", method="DELETE").status == 200
    assert ask(gateway, "/lax/pets/7?extra=1").status == 200
    invalid(ask(gateway, "/lax/pets/x"))


@pytest.mark.parametrize(
    ("body", "lines", "pointer"),
    [
        (b'{"name":"x","age":null}', (JSON,), None),
        (b'{"name":"x","kin":[{"name":"y","kin":[]}]}', (JSON,), None),
        (b'{"name":"x","kin":[{"name":1}]}', (JSON,), "/kin/0/name"),
        (b'{"name":"x","role":"admin"}', (JSON,), ""),
        (b"name=x&age=3&nick=a&nick=b", (FORM,), None),
        (b"name=x+y%26", (FORM,), None),
        (b"name=%FF", (FORM,), ""),
        (b"name=\xff", (FORM,), ""),
        (b"n\xff=x", (FORM,), ""),
        (b"name=x&age=old", (FORM,), "/age"),
        (b"name=x&name=y", (FORM,), ""),
        (b"name=x&role=admin", (FORM,), ""),
        (b"age=3", (FORM,), ""),
        (b"&".join([b"name=x"] + [b"a=b"] * 1000), (FORM,), ""),
    ],
)
def test_bodies_of_operations(
    gateway: Gateway, body: bytes, lines: tuple[str, ...], pointer: str | None
) -> None:
    response = post(gateway, body, *lines, target=PET, method="PUT")
    if pointer is None:
        assert response.status == 200, response.body
    else:
        assert pointer in [error["pointer"] for error in invalid(response)]


def test_media_types_of_operations(gateway: Gateway) -> None:
    assert invalid(ask(gateway, PET, method="PUT"))[0]["message"] == "is required"
    refusals = [
        post(gateway, b"x", "Content-Type: text/plain", target=PET, method="PUT"),
        post(gateway, b"x", JSON, target="/api/v1/upload"),
        post(gateway, b"x", "Content-Type: image", target="/api/v1/upload"),
        post(gateway, b"x", target=PET, method="GET"),  # it has no body
    ]
    assert [response.status for response in refusals] == [415] * 4
    assert post(gateway, b"\x89PNG", "Content-Type: image/png", target="/api/v1/upload").status == 200
    assert post(gateway, b"text", "Content-Type: text/plain", target="/api/v1/upload").status == 200
    invalid(post(gateway, b"longer text", "Content-Type: text/plain", target="/api/v1/upload"))


@pytest.mark.parametrize(
    ("body", "matches"),
    [({"n": 1}, True), ({"n": 0}, False), ({"n": 1, "s": None}, True), ({"n": None}, False), ({}, False)],
)
def test_documents_of_3_0(gateway: Gateway, body: Any, matches: bool) -> None:
    response = post(gateway, body, target="/old")
    assert (response.status == 200) == matches


# -- documents and schemas


@pytest.mark.parametrize(
    "schema",
    [{"pattern": "(?=a)b"}, {"pattern": r"(a)\1"}, {"patternProperties": {"(?!a)": True}}, {"pattern": "["},
     {"properties": {"a": {"pattern": "(?<=a)b"}}}, {"$ref": "http://127.0.0.1:1/x"},
     {"$ref": "file:///etc/passwd"},
     {"$ref": "other.json"}, {"$ref": "#/$defs/none"}, {"type": "strin"}, {"$schema": "http://example.com/x"},
     {"minimum": "1"}, []],
)  # fmt: skip
def test_schemas_that_can_not_be_checked_safely(schema: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Schema(schema)


def api(**paths: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {}, "paths": {f"/{name}": item for name, item in paths.items()}}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"swagger": "2.0"}, "no OpenAPI document"), ({"openapi": "4.0.0"}, "no OpenAPI document"),
        ([], "no OpenAPI document"),
        (api(x={"$ref": "other.yaml#/x"}), "only references within"),
        (api(x={"get": {"parameters": [{"$ref": "http://127.0.0.1:1/x"}]}}), "only references within"),
        (api(x={"get": {"parameters": [{"$ref": "#/paths/~1x/get/parameters/0"}]}}), "in a circle"),
        (api(x={"get": {"parameters": [{"$ref": "#/nowhere"}]}}), "is not in the document"),
        (api(x={"get": {"parameters": [{"name": "a", "in": "body"}]}}), "is no parameter"),
        (api(x={"get": {"parameters": [{"name": "a", "in": "path", "style": "form", "schema": {}}]}}),
        "style"),
        (api(x={"get": {"parameters": [{"name": "a", "in": "query"}]}}), "is not in the document"),
        (api(x={"get": {"parameters": [{"name": "a", "in": "query", "schema": {"pattern": "(?=a)"}}]}}),
        "linear-time"),
        (api(x={"get": {"parameters": [{"name": "a", "in": "query", "schema": {"$ref": "#/none"}}]}}),
        "none"),
        (api(**{"{a}-{b}": {}}), "at most one"), (api(**{"{a": {}}), "at most one"),
    ],
)  # fmt: skip
def test_documents_that_are_refused(document: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        OpenApi(document)


def test_a_reference_to_a_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("true")
    with pytest.raises(ValueError, match="Retrieval is disabled"):
        Schema({"$ref": (tmp_path / "other.json").as_uri()})


def test_errors_of_large_values_are_not_described() -> None:
    schema = Schema({"type": "string"})
    assert "string" in schema.check(1, EXPLAIN_BYTES, 8)[0].message
    assert "too many" in schema.check(1, EXPLAIN_BYTES + 1, 8)[0].message


def test_references_that_go_in_a_circle_end() -> None:
    tree = {"type": "object", "properties": {"kin": {"$ref": "#/components/schemas/Tree"}}}
    parameter = {"name": "a", "in": "query", "schema": {"$ref": "#/components/schemas/Tree"}}
    document = api(x={"get": {"parameters": [parameter]}}) | {"components": {"schemas": {"Tree": tree}}}
    match = OpenApi(document).find("GET", "/x")
    assert match is not None
    assert match.operation is not None


def test_yaml_is_read_as_json_would_be(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("{a: on, b: no, c: true, d: 2020-01-01, 200: x}")
    assert load_file(file) == {"a": "on", "b": "no", "c": True, "d": "2020-01-01", "200": "x"}
    file.write_text("a: !!python/object/apply:os.system [id]")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        load_file(file)


def test_depth_is_counted() -> None:
    assert parse_json(b"[[1]]", 3) == [[1]]
    with pytest.raises(BadDocumentError):
        parse_json(b"[[1]]", 2)
    with pytest.raises(BadDocumentError):
        parse_json(b"1" * 1000, 2)


def test_a_schema_that_is_unsafe_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"pattern": "(?=a)"}')
    tables = one_route_each("127.0.0.1:1", "request-validation", {"x": {"schema": "s.json"}})
    gateway = Gateway(tables, tmp_path)
    with pytest.raises(AssertionError, match=r"plugin x: .*linear-time"):
        gateway.start()


@pytest.mark.parametrize("table", [{}, {"schema": "a", "openapi": "b"}])
def test_one_of_both(table: dict[str, Any]) -> None:
    assert "either schema or openapi" in problems("request-validation", table)
