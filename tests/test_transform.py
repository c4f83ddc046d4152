"""Changes to requests and answers: headers, query parameters, JSON bodies by path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import upstream as up
from support.answers import refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems

from fastgate.plugins.transform.json_steps import JsonDocumentError, JsonStep, change_json

KNOWN = str(Path(__file__).parent / "support" / "plugins" / "known.py")
JSON = "Content-Type: application/json"


def gateway_config(address: str) -> dict[str, Any]:
    tables = one_route_each(
        address,
        "transform",
        {
            "headers": {
                "request": {
                    "headers": {
                        "remove": ["x-gone"],
                        "rename": {"x-old": "X-New"},
                        "set": {"X-Fixed": "yes", "X-User": "{consumer}", "X-Brace": "{{x}}"},
                        "add": {"X-Via-Us": "{route}/{method}"},
                    }
                },
                "response": {
                    "headers": {
                        "remove": "x-secret",
                        "rename": {"x-a": "x-b"},
                        "set": {"X-Request": "{request_id}", "X-Echo": "{header.x-echo}"},
                    }
                },
            },
            "query": {
                "request": {
                    "query": {
                        "remove": ["debug", "a b"],
                        "rename": {"q": "search"},
                        "set": {"tenant": "{client_ip}&x=1"},
                        "add": {"tag": "ü"},
                    }
                }
            },
            "json": {
                "request": {
                    "json": [
                        {"op": "set", "path": "/user/name", "value": "{consumer}"},
                        {"op": "remove", "path": "/is_admin"},
                        {"op": "rename", "path": "/old", "to": "/new/place"},
                        {"op": "default", "path": "/limit", "json": "10"},
                    ]
                },
                "limit": "1KiB",
                "no_compression": True,
            },
            "answer": {
                "response": {
                    "json": [
                        {"op": "remove", "path": "/password"},
                        {"op": "set", "path": "/by", "value": "{request_id}"},
                    ]
                },
                "limit": "1KiB",
            },
        },
    )
    tables["plugins"]["known"] = {"use": f"{KNOWN}:Known"}
    for route in tables["routes"]:
        route["plugins"].insert(0, "known")
    captured = {"request": {"headers": {"set": {"X-Id": "{capture.id}", "X-None": "{capture.other}"}}}}
    tables["plugins"]["captured"] = {"use": "transform", **captured}
    tables["routes"].append(
        {"name": "captured", "match": {"path": "/items/{id}"}, "upstream": "up", "plugins": ["captured"]}
    )
    return tables


def seen(gateway: Gateway, target: str, *lines: str, **options: Any) -> Any:
    response = ask(gateway, target, *lines, **options)
    assert response.status == 200, response.body
    return response.json()


def fields(found: Any, name: str) -> list[str]:
    return [value for key, value in found["fields"] if key.lower().replace("_", "-") == name]


# -- headers


def test_request_headers(gateway: Gateway) -> None:
    lines = ("X-Gone: 1", "x-gone: 2", "X-Old: 1", "X-Old: 2", "X-New: 0", "X-Fixed: no", "X-Via-Us: them")
    found = seen(gateway, "/headers", *lines)
    assert fields(found, "x-gone") == []
    assert (fields(found, "x-old"), fields(found, "x-new")) == ([], ["1", "2"])
    assert fields(found, "x-fixed") == ["yes"]
    assert fields(found, "x-brace") == ["{x}"]
    assert fields(found, "x-via-us") == ["them", "headers/GET"]


@pytest.mark.parametrize("name", ["X-User", "x-user", "X_User"])
def test_a_client_can_not_say_who_it_is(gateway: Gateway, name: str) -> None:
    assert fields(seen(gateway, "/headers", f"{name}: root"), "x-user") == []
    assert fields(seen(gateway, "/headers", f"{name}: root", "X-Who: alice"), "x-user") == ["alice"]


def test_response_headers(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"x", "X-Secret: 1", "X-A: 1", "X-B: 0", "X-Request: theirs"))
    response = ask(gateway, "/headers", "X-Request-ID: abc", "X-Echo: e")
    assert "x-secret" not in response
    assert (response.all("x-a"), response.all("x-b")) == ([], ["1"])
    assert response.get("x-echo") == "e"
    assert response.get("x-request") not in (None, "theirs")


INJECTIONS = [
    ("X-Who: a\xc3\xbcb", "a%C3%BCb"),
    ("X-Who: \xc2\x85x", "%C2%85x"),
    ("X-Who: \xe2\x80\xa8x", "%E2%80%A8x"),
    ("X-Who: {consumer}", "{consumer}"),
    ("X-Who: a%0d%0aX-Admin: 1", "a%250d%250aX-Admin: 1"),
]


@pytest.mark.parametrize(("line", "expected"), INJECTIONS)
def test_placeholders_give_printable_ascii_alone(gateway: Gateway, line: str, expected: str) -> None:
    found = seen(gateway, "/headers", line)
    assert fields(found, "x-user") == [expected]
    assert fields(found, "x-admin") == []


def test_captures_stay_encoded(gateway: Gateway) -> None:
    found = seen(gateway, "/items/a%0D%0AX-Admin:%201")
    assert fields(found, "x-id") == ["a%0D%0AX-Admin:%201"]
    assert fields(found, "x-admin") == fields(found, "x-none") == []


def test_a_value_that_grows_too_long(gateway: Gateway) -> None:
    refused(ask(gateway, "/headers", "X-Who: " + "x" * 5000), "request-invalid")


# -- query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "tenant=127.0.0.1%26x%3D1&tag=%C3%BC"),
        ("?a=1&debug&q=x%20y&b=%2B+&debug=2", "a=1&search=x%20y&b=%2B+&tenant=127.0.0.1%26x%3D1&tag=%C3%BC"),
        (
            "?%64ebug=1&a+b=1&a%20b=2&tenant=evil&%74enant=evil&q",
            "search&tenant=127.0.0.1%26x%3D1&tag=%C3%BC",
        ),
        ("?&&x=1;debug=1", "&&x=1;debug=1&tenant=127.0.0.1%26x%3D1&tag=%C3%BC"),
    ],
)
def test_query(gateway: Gateway, query: str, expected: str) -> None:
    assert seen(gateway, "/query" + query)["target"] == "/query?" + expected


def test_a_query_of_too_many_parameters(gateway: Gateway) -> None:
    refused(ask(gateway, "/query?" + "&" * 1000), "request-invalid")


# -- JSON


def post(gateway: Gateway, body: bytes, *lines: str, target: str = "/json", **options: Any) -> Any:
    found = seen(gateway, target, *(lines or (JSON,)), method="POST", body=body, **options)
    return found["body"]


def test_json_of_requests(gateway: Gateway) -> None:
    body = json.dumps({"user": {"name": "root", "x": 1}, "is_admin": True, "old": [1]}).encode()
    assert json.loads(post(gateway, body, JSON, "X-Who: alice")) == {
        "user": {"name": "alice", "x": 1},
        "new": {"place": [1]},
        "limit": 10,
    }
    assert json.loads(post(gateway, b'{"limit":null}')) == {"limit": None, "user": {"name": ""}}
    chunked = seen(gateway, "/json", JSON, method="POST", chunks=[b'{"limit"', b":1}"])
    assert json.loads(chunked["body"]) == {"limit": 1, "user": {"name": ""}}
    assert fields(chunked, "accept-encoding") == ["identity"]


def test_members_of_one_name_leave_one(gateway: Gateway) -> None:
    assert json.loads(post(gateway, b'{"is_admin":1,"is_admin":2,"limit":1,"limit":2}'))["limit"] == 2
    assert b"is_admin" not in post(gateway, b'{"is_admin":1,"is\\u005fadmin":2}').encode()


def test_numbers_stay_exact(gateway: Gateway) -> None:
    for number in ("123456789012345678901234567890", "1" * 900):
        assert f'"id":{number}' in post(gateway, b'{"id":%b}' % number.encode())


@pytest.mark.parametrize(
    "lines",
    [("Content-Type: text/plain",), (JSON, "Content-Encoding: gzip"), ("X-Other: 1",), (JSON, JSON)],
)
def test_what_is_no_plain_json_is_left_alone(gateway: Gateway, lines: tuple[str, ...]) -> None:
    assert post(gateway, b'{"is_admin": 1}', *lines) == '{"is_admin": 1}'


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e999}', b"\xff", b'"\xed\xa0\x80"', b"{} {}",
     b"[" * 900, b'{"a":1}\x00', b"[" * 300 + b"]" * 300, b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_what_only_calls_itself_json_is_refused(gateway: Gateway, upstream: Upstream, body: bytes) -> None:
    mark = upstream.mark()
    refused(ask(gateway, "/json", JSON, method="POST", body=body), "request-invalid")
    assert not mark.requests


def test_bodies_over_the_limit(gateway: Gateway) -> None:
    large = b'"' + b"x" * 1100 + b'"'
    refused(ask(gateway, "/json", JSON, method="POST", body=large), "body-too-large")
    refused(ask(gateway, "/json", JSON, method="POST", chunks=[large]), "body-too-large")


def test_json_of_answers(gateway: Gateway, upstream: Upstream) -> None:
    mark = upstream.mark()
    upstream.script(up.reply(200, b'{"password":"x","n":1}', JSON, 'ETag: "1"', "Digest: x"))
    response = ask(gateway, "/answer", "Range: bytes=0-5", 'If-Range: "1"')
    assert sorted(response.json()) == ["by", "n"]
    assert "etag" not in response
    assert "digest" not in response
    (request,) = mark.requests
    assert "range" not in request
    assert "if-range" not in request


@pytest.mark.parametrize(
    ("lines", "body"),
    [(("Content-Type: text/html",), b'{"password":1}'), ((JSON,), b"{broken"),
     ((JSON, "Content-Encoding: gzip"), b"\x1f\x8b"), ((), b"x")],
)  # fmt: skip
def test_other_answers_are_left_alone(
    gateway: Gateway, upstream: Upstream, lines: tuple[str, ...], body: bytes
) -> None:
    upstream.script(up.reply(200, body, *lines))
    assert ask(gateway, "/answer").body == body


def test_an_answer_over_the_limit(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(up.reply(200, b"x" * 2000))
    refused(ask(gateway, "/answer"), "plugin-body-too-large")


# -- pointers (RFC 6901)

DOCUMENT = {"a/b": 1, "m~n": 2, "": 3, "k": {"~1": 4, "x": [1, 2, 3]}, "é": 5, "n": None}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"op": "remove", "path": "/a~1b"}, {"a/b": ...}),
        ({"op": "remove", "path": "/m~0n"}, {"m~n": ...}),
        ({"op": "remove", "path": "/"}, {"": ...}),
        ({"op": "remove", "path": "/k/~01"}, {"k": {"x": [1, 2, 3]}}),
        ({"op": "remove", "path": "/k/x/1"}, {"k": {"~1": 4, "x": [1, 3]}}),
        ({"op": "remove", "path": "/k/x/01"}, {}),
        ({"op": "remove", "path": "/k/x/-1"}, {}),
        ({"op": "remove", "path": "/k/x/3"}, {}),
        ({"op": "remove", "path": "/k/x/-"}, {}),
        ({"op": "remove", "path": "/k/x/٣"}, {}),
        ({"op": "remove", "path": "/é/x"}, {}),
        ({"op": "remove", "path": "/no/where"}, {}),
        ({"op": "set", "path": "/k/x/-", "json": "4"}, {"k": {"~1": 4, "x": [1, 2, 3, 4]}}),
        ({"op": "set", "path": "/k/x/9", "json": "4"}, {}),
        ({"op": "set", "path": "/k/x/0", "json": "[]"}, {"k": {"~1": 4, "x": [[], 2, 3]}}),
        ({"op": "set", "path": "/é/x", "json": "4"}, {}),
        ({"op": "set", "path": "/new/x/y", "json": "4"}, {"new": {"x": {"y": 4}}}),
        ({"op": "default", "path": "/n", "json": "4"}, {}),
        ({"op": "default", "path": "/N", "json": "4"}, {"N": 4}),
        ({"op": "rename", "path": "/n", "to": "/k/n"}, {"n": ..., "k": {"~1": 4, "x": [1, 2, 3], "n": None}}),
        ({"op": "rename", "path": "/no", "to": "/n"}, {}),
    ],
)  # fmt: skip
def test_pointers(step: dict[str, Any], expected: dict[str, Any]) -> None:
    changed = json.loads(change_json(json.dumps(DOCUMENT).encode(), (JsonStep(**step),), {}))
    merged = {**DOCUMENT, **expected}
    assert changed == {key: value for key, value in merged.items() if value is not ...}


@pytest.mark.parametrize("document", ["1", "null", '"x"', "[]", "true"])
def test_documents_that_are_no_object(document: str) -> None:
    step = JsonStep(op="set", path="/a/b", json="1")
    assert change_json(document.encode(), (step,), {}).decode() == document


def test_deep_documents_meet_no_recursion() -> None:
    with pytest.raises(JsonDocumentError):
        change_json(b"[" * 100_000 + b"]" * 100_000, (), {})


# -- configurations


def headers(**rules: Any) -> dict[str, Any]:
    return {"request": {"headers": rules}}


def steps(**step: Any) -> dict[str, Any]:
    return {"request": {"json": [step]}}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (headers(set={"X-A": "{nobody}"}), "no placeholder is {nobody}"),
        (headers(set={"X-A": "{consumer"}), "single brace"),
        (headers(set={"X-A": "}"}), "single brace"),
        (headers(set={"X-A": "{capture.}"}), "no placeholder"),
        (headers(set={"X-A": "{consumer.__class__}"}), "no placeholder"),
        (headers(set={"X-A": "a\r\nX-B: 1"}), "carriage return"),
        (headers(set={"Host": "x"}), "cannot be changed"),
        (headers(set={"X-Forwarded-For": "x"}), "set by the gateway itself"),
        (headers(remove=["Via"]), "set by the gateway itself"),
        (headers(rename={"x-a": "Forwarded"}), "set by the gateway itself"),
        (headers(set={"X A": "x"}), "header name"),
        (steps(op="set", path="a", value="x"), "JSON Pointer"),
        (steps(op="set", path="", value="x"), "JSON Pointer"),
        (steps(op="set", path="/a~2", value="x"), "JSON Pointer"),
        (steps(op="set", path="/a"), "needs either value or json"),
        (steps(op="set", path="/a", value="x", json="1"), "needs either value or json"),
        (steps(op="set", path="/a", json="{"), "no JSON"),
        (steps(op="set", path="/a", value="{x}"), "no placeholder"),
        (steps(op="remove", path="/a", value="x"), "takes no value"),
        (steps(op="rename", path="/a"), "JSON Pointer"),
        (steps(op="rename", path="/a", to="/a/b"), "into itself"),
        (steps(op="remove", path="/a", to="/b"), "only of rename"),
        ({"request": {"query": {"set": {"a": "{"}}}}, "single brace"),
    ],
)
def test_configurations(table: dict[str, Any], told: str) -> None:
    assert told in problems("transform", table)


def test_a_sound_configuration_brings_no_warning() -> None:
    assert problems("transform", headers(set={"X-A": "{consumer}"})) == ""
