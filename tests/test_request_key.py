"""The key of a request: which parts it is made of, and that everybody computes the same one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate._core import RequestKey, SampleRequest, sip_hash


def first(parts: tuple[str, ...], **request: object) -> int | None:
    return RequestKey(parts).hash_first(SampleRequest(**request))  # type: ignore[arg-type]


def test_the_first_part_that_the_request_has_decides() -> None:
    key = RequestKey(["header:x-user", "cookie:uid", "query:user", "consumer", "client-ip"])
    user = [("X-User", "ann")]
    cookie = [("cookie", "a=1; uid=bob")]

    def of(**request: object) -> int | None:
        return key.hash_first(SampleRequest(**request))  # type: ignore[arg-type]

    alone = of(headers=user)
    assert alone == of(headers=user + cookie, query="user=eve", consumer="joe", client="10.0.0.9")
    assert of(headers=cookie) == of(headers=cookie, query="user=eve", consumer="joe") != alone
    assert of(query="user=eve") == of(query="user=eve", consumer="joe", client="10.0.0.9")
    assert of(consumer="joe") == of(consumer="joe", client="10.0.0.9")
    assert of(client="10.0.0.1") != of(client="10.0.0.2")
    # The same value is the same user, wherever it stands.
    assert of(headers=[("x-user", "bob")]) == of(headers=cookie) == of(query="user=bob") == of(consumer="bob")


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": [("x-other", "1")]},
        {"headers": [("x-user", "")]},
        {"headers": [("cookie", "uid=; xuid=1; UID=2; uid")]},
        {"query": ""},
        {"query": "user=&user=second"},
        {"query": "users=1&use=2&user"},
        {"client": ""},
    ],
)
def test_none_of_the_parts(request_: dict[str, object]) -> None:
    # An empty value counts as absent; a Unix socket's peer has no address.
    request = {"client": "", **request_}
    parts = ("header:x-user", "cookie:uid", "query:user", "path:user", "consumer", "client-ip")
    assert first(parts, **request) is None
    assert first((*parts, "global"), **request) == first(("global",))


@pytest.mark.parametrize(
    ("query", "same_as"),
    [
        ("user=ann", "x=1&user=ann&user=bob"),
        ("user=a%20b", "&&user=a%20b&"),
        ("user=a=b", "user=a=b&user=c"),
    ],
)
def test_the_first_query_parameter_counts(query: str, same_as: str) -> None:
    assert first(("query:user",), query=query) == first(("query:user",), query=same_as) is not None


def test_a_query_parameter_is_not_decoded() -> None:
    assert first(("query:user",), query="user=a%20b") != first(("query:user",), query="user=a+b")
    assert first(("query:user",), query="us%65r=a") is None
    assert first(("query:user",), query="USER=a") is None


def test_path_segments_are_found_by_their_names() -> None:
    key = RequestKey(("path:tenant",))
    one, other = (
        SampleRequest(captures={"tenant": "acme"}),
        SampleRequest(captures={"region": "eu", "tenant": "acme"}),
    )
    assert key.hash_first(one) == key.hash_first(other) is not None
    assert key.hash_first(SampleRequest(captures={"region": "acme"})) is None
    assert key.hash_first(SampleRequest()) is None


def test_every_worker_and_replica_hashes_alike() -> None:
    # Another hash after an upgrade would move every user: a length and padded bytes or an address, zero key.
    def hashed(message: bytes) -> int:
        return int.from_bytes(sip_hash(bytes(16), message), "little")

    name = (3).to_bytes(8, "little") + b"ann" + bytes(5)
    assert first(("header:x-user",), headers=[("x-user", "ann")]) == hashed(name)
    address = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
    assert first(("client-ip",), client="192.0.2.1") == hashed(address)
    request = SampleRequest()
    assert RequestKey(["global"], seed=b"x" * 16).hash_first(request) != RequestKey(["global"]).hash_first(
        request
    )


def test_ipv6_clients_of_one_network_are_one() -> None:
    assert first(("client-ip",), client="2001:db8::1") == first(("client-ip",), client="2001:db8::2")
    whole = RequestKey(["client-ip"], ipv6_prefix=128)
    assert whole.hash_first(SampleRequest("2001:db8::1")) != whole.hash_first(SampleRequest("2001:db8::2"))


texts = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=';,&=#"\\'), max_size=20
)


@given(texts, texts, texts, texts)
def test_two_keys_are_alike_only_if_all_their_values_are(a: str, b: str, c: str, d: str) -> None:
    key = RequestKey(["header:a", "cookie:b", "query:c"])

    def every(header: str, cookie: str) -> int:
        return key.hash_every(SampleRequest(headers=[("a", header), ("cookie", f"b={cookie}")], query="c=1"))

    assert (every(a, b) == every(c, d)) is ((a, b) == (c, d))


def test_a_scope_keeps_keys_apart() -> None:
    key, request = RequestKey(["client-ip"]), SampleRequest()
    assert len({key.hash_every(request, scope) for scope in (0, 1, 2)}) == 3


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        ([], {}),
        (["global"] * 17, {}),
        (["client"], {}),
        (["header:"], {}),
        (["query:"], {}),
        (["global:x"], {}),
        (["global"], {"seed": b"short"}),
        (["global"], {"ipv6_prefix": 129}),
        (["global"], {"ipv6_prefix": -1}),
    ],
)
def test_what_is_no_key(parts: list[str], options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        RequestKey(parts, **options)  # type: ignore[arg-type]


def test_a_key_is_built_once() -> None:
    key = RequestKey(["global"])
    with pytest.raises(TypeError):
        key.__init__(["client-ip"])  # type: ignore[misc]
