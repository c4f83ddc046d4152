"""The plugin api-key: where a key may stand, whose it is, what is refused, and its watched file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway
from support.gatekeepers import (
    WHO,
    ask,
    assert_refused_because,
    problems_of,
    seen,
    seen_target,
    wait_for,
    who,
)
from support.gateway import Gateway, config
from support.upstream import Upstream

from fastgate.plugins._keys_file import parse_file

KEY, OTHER, OLD = "alice-7d2f5c81", "bob-19e3a4c6", "carol-5be80d17"


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def entry(key: str, consumer: str, **more: Any) -> dict[str, Any]:
    return {"sha256": sha256(key), "consumer": consumer, **more}


KEYS = [
    entry(KEY, "alice", plan="gold", groups=["staff", "admins"], scopes=["read"]),
    entry(OTHER, "bob", expires="2999-01-01T00:00:00Z"),
    entry(OLD, "carol", expires="2020-01-01T00:00:00+01:00"),
    entry("ünï", "ünï %"),
]
PLACES = ["header:X-API-Key", "query:api_key", "cookie:key", "bearer"]


def gateway_config(upstream: str) -> dict[str, Any]:
    def route(name: str, *plugins: str) -> dict[str, Any]:
        return {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": list(plugins)}

    return config(
        upstream,
        routes=[route("header", "header", "who"), route("all", "all", "who"), route("kept", "kept", "who"),
                route("report", "report", "who")],
        plugins={
            "who": WHO,
            "header": {"use": "api-key", "keys": KEYS, "consumer_header": "X-Consumer"},
            "all": {"use": "api-key", "keys": KEYS, "places": PLACES, "realm": "the api"},
            "kept": {"use": "api-key", "keys": KEYS, "places": PLACES, "forward": True},
            "report": {"use": "api-key", "keys": KEYS, "consumer_header": "X-Consumer", "report_only": True},
        },
    )  # fmt: skip


def test_a_key_says_who_the_caller_is(gateway: Gateway) -> None:
    response = ask(gateway, "/header", f"X-Api-Key: {KEY}", "X-Consumer: bob", "x_consumer: bob")
    assert who(response) == {
        "name": "alice", "plan": "gold", "groups": ["admins", "staff"], "scopes": ["read"],
        "source": "header",
    }  # fmt: skip
    fields = seen(response)
    assert fields["x-consumer"] == ["alice"]
    assert "x_consumer" not in fields
    assert "x-api-key" not in fields


def test_a_name_that_is_not_ascii_is_percent_encoded_for_the_service(gateway: Gateway) -> None:
    line = "X-Api-Key: " + "ünï".encode().decode("latin-1")
    assert seen(ask(gateway, "/header", line))["x-consumer"] == ["%C3%BCn%C3%AF%20%25"]


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("/all", f"x-api-key: {KEY}"),
        ("/all", f"X-API-KEY: {KEY}"),
        (f"/all?a=1&api_key={KEY}&b=%20", ""),
        ("/all?a=1&api%5fkey=alice%2D7d2f5c81&b=%20", ""),
        ("/all", f"Cookie: a=1; key={KEY}; b"),
        ("/all", f"Authorization: bearer {KEY}"),
        # The same key in two places is one key.
        (f"/all?api_key={KEY}", f"X-API-KEY: {KEY}"),
    ],
)
def test_each_place_is_read_and_emptied(gateway: Gateway, target: str, line: str) -> None:
    lines = [line] if line else []
    response = ask(gateway, target, *lines)
    assert who(response)["name"] == "alice"
    assert KEY.encode() not in response.body
    assert "a%2D7d" not in seen_target(response)
    kept = ask(gateway, target.replace("/all", "/kept"), *lines)
    assert seen_target(kept) == target.replace("/all", "/kept")
    if lines:
        name, _, value = line.partition(": ")
        assert seen(kept)[name.lower()] == [value]


def test_only_the_key_is_taken_out(gateway: Gateway) -> None:
    response = ask(
        gateway, f"/all?a=%20&api_key={KEY}&&b=1+2&c", f"Cookie: a=1; key={KEY} ;b", "Cookie: c=%20"
    )
    assert seen_target(response) == "/all?a=%20&&b=1+2&c"
    assert seen(response)["cookie"] == ["a=1; b; c=%20"]
    assert seen_target(ask(gateway, f"/all?api_key={KEY}")) == "/all"


REQUIRED, FAILED = "authentication-required", "authentication-failed"
ATTACKS = [
    ("no key", "/all", [], REQUIRED, "no API key"),
    ("empty", "/all", ["X-API-Key:"], FAILED, "unknown"),
    ("unknown", "/all", ["X-API-Key: nobody"], FAILED, "unknown"),
    ("the stored digest itself", "/all", [f"X-API-Key: {sha256(KEY)}"], FAILED, "unknown"),
    ("another case", "/all", [f"X-API-Key: {KEY.upper()}"], FAILED, "unknown"),
    ("a part", "/all", [f"X-API-Key: {KEY[:-1]}"], FAILED, "unknown"),
    ("more behind it", "/all", [f"X-API-Key: {KEY},"], FAILED, "unknown"),
    ("a list", "/all", [f"X-API-Key: {KEY}, {KEY}"], FAILED, "unknown"),
    ("oversized", "/all", ["X-API-Key: " + "a" * 6000], FAILED, "unknown"),
    ("expired", "/all", [f"X-API-Key: {OLD}"], FAILED, "carol has expired"),
    ("two headers", "/all", [f"X-API-Key: {KEY}", f"X-API-Key: {OTHER}"], FAILED, "two different"),
    ("good, then bad", "/all", [f"X-API-Key: {KEY}", "X-API-Key: nobody"], FAILED, "two different"),
    ("good and empty", "/all", [f"X-API-Key: {KEY}", "X-API-Key:"], FAILED, "two different"),
    ("two parameters", f"/all?api_key={KEY}&api_key={OTHER}", [], FAILED, "two different"),
    ("encoded twin", f"/all?api_key={KEY}&api%5Fkey={OTHER}", [], FAILED, "two different"),
    ("two cookies", "/all", [f"Cookie: key={KEY}; key={OTHER}"], FAILED, "two different"),
    ("two Cookie fields", "/all", [f"Cookie: key={KEY}", f"Cookie: key={OTHER}"], FAILED, "two different"),
    ("header and query", f"/all?api_key={OTHER}", [f"X-API-Key: {KEY}"], FAILED, "two different"),
    (
        "header and bearer",
        "/all",
        [f"X-API-Key: {KEY}", f"Authorization: Bearer {OTHER}"],
        FAILED,
        "two diff",
    ),
    ("underscores", "/all", [f"X_API_Key: {KEY}"], REQUIRED, "no API key"),
    ("another case of the parameter", f"/all?API_KEY={KEY}", [], REQUIRED, "no API key"),
    ("another case of the cookie", "/all", [f"Cookie: KEY={KEY}"], REQUIRED, "no API key"),
    ("a place that is not configured", f"/header?api_key={KEY}", [], REQUIRED, "no API key"),
    ("in the path", f"/all/api_key={KEY}", [], REQUIRED, "no API key"),
    ("another scheme", "/all", [f"Authorization: Basic {KEY}"], REQUIRED, "no API key"),
]


@pytest.mark.parametrize(
    ("target", "lines", "code", "detail"), [case[1:] for case in ATTACKS], ids=[c[0] for c in ATTACKS]
)
def test_attacks(gateway: Gateway, target: str, lines: list[str], code: str, detail: str) -> None:
    assert_refused_because(gateway, lambda: ask(gateway, target, *lines), 401, code, detail)


def test_the_challenge_names_scheme_and_realm(gateway: Gateway) -> None:
    assert ask(gateway, "/header").get("www-authenticate") == 'ApiKey realm="api"'
    assert ask(gateway, "/all").get("www-authenticate") == 'Bearer realm="the api"'


def test_report_only_lets_pass_but_vouches_for_nobody(gateway: Gateway) -> None:
    response = ask(gateway, "/report", "X-API-Key: nobody", "X-Consumer: alice")
    assert who(response) is None
    assert "x-consumer" not in seen(response)
    assert seen(ask(gateway, "/report", f"X-API-Key: {KEY}"))["x-consumer"] == ["alice"]


def toml_file(*entries: dict[str, Any]) -> str:
    return "".join(
        "[[keys]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in each.items())
        for each in entries
    )


def test_the_file_is_read_again_when_it_changes(
    start_gateway: StartGateway, upstream: Upstream, tmp_path: Path
) -> None:
    """As Kubernetes changes a mounted secret: a symlink to a folder is swapped."""
    for number, text in enumerate(
        [toml_file(entry(OTHER, "bob")), "keys = [\n", toml_file(entry(OLD, "carol"))]
    ):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "keys.toml").write_text(text)
    (tmp_path / "data").symlink_to("v0")
    (tmp_path / "keys.toml").symlink_to("data/keys.toml")

    def swap(version: str) -> None:
        (tmp_path / "new").symlink_to(version)
        (tmp_path / "new").rename(tmp_path / "data")

    gateway = start_gateway(
        config(
            upstream.address,
            plugins={
                "x": {"use": "api-key", "keys": [entry(KEY, "alice")], "file": str(tmp_path / "keys.toml")}
            },
            route={"plugins": ["x"]},
        )
    )

    def admitted(key: str) -> bool:
        return ask(gateway, "/", f"X-API-Key: {key}").status == 200

    assert [admitted(KEY), admitted(OTHER), admitted(OLD)] == [True, True, False]
    swap("v1")
    assert "what it said before stays in force" in gateway.wait_stderr(
        f"fastgate: plugin x: {tmp_path}/keys.toml"
    )
    assert [admitted(KEY), admitted(OTHER), admitted(OLD)] == [True, True, False]
    swap("v2")
    wait_for(lambda: admitted(OLD))
    assert [admitted(KEY), admitted(OTHER)] == [True, False]


def test_a_json_file(start_gateway: StartGateway, upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [entry(KEY, "alice", groups=["a"])]}))
    plugins = {"x": {"use": "api-key", "file": str(file)}, "who": WHO}
    gateway = start_gateway(config(upstream.address, plugins=plugins, route={"plugins": ["x", "who"]}))
    assert who(ask(gateway, "/", f"X-API-Key: {KEY}"))["groups"] == ["a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (toml_file(entry(OTHER, "a"), entry(OTHER, "b")), "listed twice"),
        (toml_file({"key": OTHER, "consumer": "a"}), "sha256sum"),
        (toml_file({"sha256": "12", "consumer": "a"}), "64 hexadecimal digits"),
        (toml_file({"sha256": sha256(OTHER)}), "consumer"),
        (toml_file(entry(OTHER, "a", exipres="2030-01-01T00:00:00Z")), "exipres"),
        (toml_file(entry(OTHER, "a", expires="2030-01-01T00:00:00")), "time zone"),
        ("keys = 1", "array"),
        ("keys", "Expected '='"),
    ],
    ids=["twice", "plain key", "short", "nobody", "typo", "no zone", "no array", "no TOML"],
)
def test_what_a_file_may_not_say(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_file(text.encode(), ".toml", "x")
    assert OTHER not in str(caught.value)


def test_dates_of_toml_are_dates() -> None:
    text = f'[[keys]]\nsha256 = "{sha256(KEY)}"\nconsumer = "a"\nexpires = 2001-09-09T01:46:40Z\n'
    assert parse_file(text.encode(), ".toml", "x")[bytes.fromhex(sha256(KEY))].expires == 1e9


@pytest.mark.parametrize(
    "text", [None, toml_file(entry(KEY, "alice"))], ids=["no file", "key of the configuration"]
)
def test_a_gateway_does_not_start_on_a_bad_file(upstream: Upstream, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "keys.toml"
    if text is not None:
        file.write_text(text)
    plugin = {"use": "api-key", "keys": [entry(KEY, "alice")], "file": str(file)}
    tables = config(upstream.address, plugins={"x": plugin}, route={"plugins": ["x"]})
    problem = "No such file" if text is None else "stands in the configuration too"
    with pytest.raises(AssertionError, match=problem), Gateway(tables, tmp_path):
        pass


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ({}, "no key"),
        ({"keys": [{"key": KEY, "consumer": "alice"}]}, "printf %s KEY | sha256sum"),
        ({"keys": [{"sha256": sha256(KEY)}]}, "consumer"),
        ({"keys": [{"sha256": "abc", "consumer": "a"}]}, "64 hexadecimal digits"),
        ({"keys": [entry(KEY, "a"), entry(KEY, "b")]}, "listed twice"),
        ({"keys": [entry(KEY, "a", expires="tomorrow")]}, "no date and time"),
        ({"keys": KEYS, "places": "body:key"}, "none of"),
        ({"keys": KEYS, "places": "header:a b"}, "no name of a header"),
        ({"keys": KEYS, "places": []}, "must not be empty"),
        ({"keys": KEYS, "realm": 'a"b'}, "quotes"),
        ({"keys": KEYS, "consumer_header": "Host"}, "Host"),
    ],
)
def test_what_a_configuration_may_not_say(plugin: dict[str, Any], problem: str) -> None:
    told = problems_of({"use": "api-key", **plugin})
    assert problem in told
    assert KEY not in told
