"""JSON values of an aggregation: what is valid, opened level by level, and exact to the last digit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw
from support.shapes import Written, exact

from fastgate.aggregation.documents import (
    MISSING,
    Value,
    decode_json,
    encode,
    find,
    kind_of,
    opened,
    scalar_text,
    size_of,
)
from fastgate.aggregation.failures import PartFailure
from fastgate.config.json_paths import Path, read_path, write_path

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SPACE = st.text(" \t\r\n", max_size=2)


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON text, with white space and escapes where they may stand."""

    def string() -> str:
        return json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))

    space = draw(SPACE)
    kind = draw(st.integers(0, 3 if depth == 0 else 5))
    if kind == 4:
        inner = ",".join(draw(documents(depth - 1)) for _ in range(draw(st.integers(0, 3))))
        return f"{space}[{inner or space}]{space}"
    if kind == 5:
        names = draw(st.lists(TEXTS, unique=True, max_size=3))
        inner = ",".join(f"{space}{json.dumps(name)}{space}:{draw(documents(depth - 1))}" for name in names)
        return f"{space}{{{inner or space}}}{space}"
    return space + (draw(NUMBERS), string(), "null", draw(st.sampled_from(["true", "false"])))[kind] + space


def all_open(value: Value) -> Any:
    """In the form of ``exact``."""
    value = opened(value)
    if isinstance(value, dict):
        return tuple((name, all_open(member)) for name, member in value.items())
    if isinstance(value, list):
        return [all_open(element) for element in value]
    return Written(bytes(value).decode()) if isinstance(value, Raw) else value


@given(documents(), st.booleans())
@example("12345678901234567890", False)
@example('{"price":1.10,"far":1e400,"zero":-0}', True)
def test_a_document_is_what_json_says_and_every_number_keeps_its_digits(text: str, opening: bool) -> None:
    value = decode_json(text.encode(), opening=opening)
    assert all_open(value) == exact(text)
    assert exact(encode(value)) == exact(text)


@given(documents())
def test_what_is_opened_and_encoded_again_is_the_same(text: str) -> None:
    def again(value: Value) -> Value:
        value = opened(value)
        if isinstance(value, dict):
            return {name: again(member) for name, member in value.items()}
        return [again(element) for element in value] if isinstance(value, list) else value

    assert exact(encode(again(decode_json(text.encode())))) == exact(text)


@given(st.binary(max_size=40) | documents().map(str.encode).flatmap(lambda whole: spoilt(whole)))
def test_a_body_is_taken_exactly_when_it_is_json(body: bytes) -> None:
    """The judge is Python's json, which takes NaN and half surrogates beside what RFC 8259 has."""
    try:
        expected = json.loads(body.decode(), parse_constant=lambda text: 1 / 0)
        json.dumps(expected, ensure_ascii=False).encode()
    except (ValueError, ZeroDivisionError):
        with pytest.raises(PartFailure) as caught:
            decode_json(body)
        assert caught.value.reason == "part-body"
    else:
        all_open(decode_json(body))
        all_open(decode_json(body, opening=True))


def spoilt(body: bytes) -> st.SearchStrategy[bytes]:
    """With a byte more, less or changed."""
    place = st.integers(0, max(0, len(body) - 1))
    byte = st.sampled_from(b'{}[]",:\\u0019-.eE+ \xff\xc3\n\x00').map(lambda one: bytes([one]))
    return st.builds(lambda at, new, cut: body[:at] + new + body[at + cut :], place, byte, st.integers(0, 1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{} {}",
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"'a'",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"NaN",
        b"Infinity",
        b"nul",
        b'"\t"',
        b'"\\x"',
        b'"\xff"',
        b'{"\xff":1}',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'["\\udc00", 1]',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("opening", [False, True])
def test_bad_json(body: bytes, opening: bool) -> None:
    with pytest.raises(PartFailure, match="part-body"):
        decode_json(body, opening=opening)


def test_a_byte_order_mark_is_ignored() -> None:
    assert encode(decode_json(b"\xef\xbb\xbf[1]")) == b"[1]"


def test_of_members_that_stand_twice_the_last_counts() -> None:
    body = b'{"a":1,"a":2}'
    assert encode(decode_json(body)) == body
    assert encode(opened(decode_json(body))) == b'{"a":2}'
    assert encode(find(decode_json(body), ("a",))) == b"2"  # type: ignore[arg-type]


def test_what_is_nested_too_deep_to_be_opened_here_fails_the_part() -> None:
    # Sound where it was decoded, and opened where Python's stack is deep already.
    value = decode_json(b"[" * 800 + b"]" * 800)

    def deeper(levels: int) -> Value:
        return opened(value) if levels == 0 else deeper(levels - 1)

    with pytest.raises(PartFailure, match="nested too deep"):
        deeper(400)
    nested: Value = None
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(PartFailure, match="nested too deep"):
        encode(nested)


DOCUMENT = b'{"a": {"b": [10, {"c": null}], "x.y": 1.10}, "n": null}'


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", DOCUMENT),
        ("a.b[0]", b"10"),
        ("a.b[1].c", b"null"),
        ('a."x.y"', b"1.10"),
        ("n", b"null"),
        ("n.a", None),
        ("a.b[2]", None),
        ("a.b.c", None),
        ("a[0]", None),
        ("a.b[0].x", None),
        ("z", None),
    ],
)
def test_find(path: str, found: bytes | None) -> None:
    for value in (decode_json(DOCUMENT), opened(decode_json(DOCUMENT))):
        got = find(value, read_path(path))
        if found is None:
            assert got is MISSING
        else:
            assert got is not MISSING
            assert exact(encode(got)) == exact(found)


NAMES = st.text(st.characters(exclude_characters="\n"), min_size=1, max_size=5)


@given(st.lists(NAMES | st.integers(0, 999_999_999) | st.none(), max_size=6).map(tuple))
def test_a_path_is_read_as_it_is_written(steps: Path) -> None:
    assert read_path(write_path(steps)) == steps


@pytest.mark.parametrize(
    ("body", "text", "kind"),
    [
        (b'"a\\u00fc"', "aü", "a string"),
        (b"1.10", "1.10", "a number"),
        (b"-0", "-0", "a number"),
        (b"true", "true", "a boolean"),
        (b"false", "false", "a boolean"),
        (b"null", None, "null"),
        (b"{}", None, "an object"),
        (b"[]", None, "a list"),
    ],
)
def test_scalars_as_text(body: bytes, text: str | None, kind: str) -> None:
    for value in (decode_json(body), opened(decode_json(body))):
        assert kind_of(value) == kind
        if text is None:
            with pytest.raises(PartFailure, match=f"part-value: .*got {kind}"):
                scalar_text(value)
        else:
            assert scalar_text(value) == text


@given(documents())
def test_the_size_is_about_that_of_the_text(text: str) -> None:
    value = decode_json(text.encode())
    assert size_of(value) == len(encode(value))
    one = opened(value)
    assert size_of(one) <= 2 * len(text.encode()) + 8
