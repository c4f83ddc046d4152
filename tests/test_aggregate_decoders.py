"""Bodies of parts: by Content-Type and by `decode`, hostile ones too."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shapes import reason

from fastgate.aggregation import decoders, expressions
from fastgate.aggregation.decoders import decode_body, missing
from fastgate.aggregation.documents import encode
from fastgate.aggregation.failures import PartFailure
from fastgate.config import ConfigError, loads

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def decoded(body: bytes, how: str, content_type: str | None = None) -> Any:
    return json.loads(encode(decode_body(body, content_type, how)))


def refused(body: bytes, how: str, content_type: str | None = None) -> str:
    with pytest.raises(PartFailure) as caught:
        decode_body(body, content_type, how)
    assert caught.value.reason == "part-body"
    return caught.value.detail


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        ("application/json", b'{"a":1}', {"a": 1}),
        ("Application/JSON ; charset=utf-8", b"[]", []),
        ("application/problem+json", b'{"a":1}', {"a": 1}),
        ("text/json", b"1", 1),
        ("text/plain", "ü".encode(), "ü"),
        ('text/plain; a=b; Charset="ISO-8859-1"', b"\xfc", "ü"),
        ("text/html;charset=us-ascii", b"<p>", "<p>"),
        ("text/csv", b"a,b", "a,b"),
        ("application/xml", b"<a/>", "PGEvPg=="),
        ("image/png", b"\x89PNG", "iVBORw=="),
        ("application/json, text/plain", b"{}", "e30="),
        (None, b"{}", "e30="),
        ("", b"{}", "e30="),
        (None, b"", None),
        ("application/octet-stream", b"", ""),
        ("text/plain", b"", ""),
    ],
)
def test_auto_goes_by_the_content_type(content_type: str | None, body: bytes, value: Any) -> None:
    assert decoded(body, "auto", content_type) == value


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json; charset=iso-8859-1", b'"\xfc"'),
        ("text/plain", b"\xfc"),
        ("text/plain; charset=us-ascii", b"\xfc"),
        ("text/plain; charset=utf-16", b"a\x00"),
        ("text/plain; charset=rot13", b"a"),
        ("text/plain; charset=", b"\xfc"),
    ],
)
def test_auto_refuses_what_is_not_what_it_says(content_type: str, body: bytes) -> None:
    refused(body, "auto", content_type)


def test_a_kind_that_is_told_stands_above_the_content_type() -> None:
    assert decoded(b'{"a":1}', "json", "text/plain") == {"a": 1}
    assert decoded(b'{"a":1}', "text", "application/json") == '{"a":1}'
    assert decoded(b"{}", "base64", "application/json") == "e30="


@given(
    st.binary(max_size=200),
    st.sampled_from(["auto", "json", "text", "base64", "xml", "form", "csv"]),
    st.sampled_from([None, "text/plain; charset=latin-1", "text/xml; charset=us-ascii", "x/y+json", "text/a"])
    | TEXTS,
)
def test_any_body_gives_a_value_or_a_reason(body: bytes, how: str, content_type: str | None) -> None:
    why = reason(lambda: json.loads(encode(decode_body(body, content_type, how))))
    assert why in ("", "part-body", "part-too-large")


# -- XML


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("<a/>", {"a": ""}),
        ("<a> t </a>", {"a": " t "}),
        ('<a x="1"> t </a>', {"a": {"@x": "1", "#text": "t"}}),
        ("<a><b>1</b><b>2</b><c/></a>", {"a": {"b": ["1", "2"], "c": ""}}),
        ("<a>x<b/>y</a>", {"a": {"b": "", "#text": "xy"}}),
        ('<p:a xmlns:p="urn:p" p:x="1"><p:b/></p:a>', {"a": {"@x": "1", "b": ""}}),
        ("<a><![CDATA[<&]]>&lt;&#228;</a>", {"a": "<&<ä"}),
        ("<?xml version='1.0'?><!-- c --><a><?pi x?></a>", {"a": ""}),
    ],
)
def test_xml(body: str, value: Any) -> None:
    assert decoded(body.encode(), "xml") == value


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<a>\xfc</a>", "text/xml; charset=iso-8859-1"),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xfc</a>", "text/xml"),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xc3\xbc</a>", "text/xml; charset=utf-8"),
        ("<a>ü</a>".encode("utf-16"), "text/xml; charset=us-ascii"),
        ("<a>ü</a>".encode("utf-8-sig"), "text/xml; charset=iso-8859-1"),
    ],
)
def test_the_encoding_of_xml(body: bytes, content_type: str) -> None:
    """RFC 7303 3.2: the mark, the charset, the declaration, in this order."""
    assert decoded(body, "xml", content_type) == {"a": "ü"}


LAUGHS = '<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
)


@pytest.mark.parametrize(
    "body",
    [
        f"<!DOCTYPE a [{LAUGHS}]><a>&j;</a>",
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><a/>',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/p"> %p;]><a/>',
        "<!DOCTYPE a><a/>",
    ],
)
def test_no_document_type_is_read(body: str) -> None:
    assert "DTDForbidden" in refused(body.encode(), "xml")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<a>",
        b"<a></b>",
        b"<a/><b/>",
        b"<a x='1' x='2'/>",
        b"<a>&x;</a>",
        b"<a>&#0;</a>",
        b"<a>\xff</a>",
        b"<?xml version='1.0' encoding='rot13'?><a/>",
        b"<?xml version='1.0' encoding='none-such'?><a/>",
        b"<a>" * 65 + b"</a>" * 65,
        b"<r>" + b"<a/>" * 50_000 + b"</r>",
        b"<r " + b" ".join(b"a%d='1'" % i for i in range(50_001)) + b"/>",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_bad_xml(body: bytes) -> None:
    refused(body, "xml")


def test_xml_up_to_its_bounds() -> None:
    assert len(decoded(b"<r>" + b"<a/>" * 49_999 + b"</r>", "xml")["r"]["a"]) == 49_999
    value = decoded(b"<a>" * 64 + b"</a>" * 64, "xml")
    for _ in range(64):
        value = value["a"]
    assert value == ""


# -- forms


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=10))
def test_a_form_is_read_as_it_is_written(fields: list[tuple[str, str]]) -> None:
    expected: dict[str, list[str]] = {}
    for name, value in fields:
        expected.setdefault(name, []).append(value)
    assert decoded(urlencode(fields).encode(), "form") == {
        name: values if len(values) > 1 else values[0] for name, values in expected.items()
    }


def test_bad_forms() -> None:
    assert "UTF-8" in refused(b"a=%ff", "form")
    refused(b"a=\xff", "form")
    assert len(decoded("&".join(f"a{i}=1" for i in range(1000)).encode(), "form")) == 1000
    assert "1000 fields" in refused(b"a=1&" * 1000 + b"a=1", "form")


# -- tables


@given(
    st.lists(TEXTS.filter(bool), min_size=1, max_size=4, unique=True).flatmap(
        lambda header: st.tuples(
            st.just(header),
            st.lists(st.lists(TEXTS, min_size=len(header), max_size=len(header)).filter(any), max_size=4),
        )
    )
)
def test_a_table_is_read_as_it_is_written(table: tuple[list[str], list[list[str]]]) -> None:
    header, rows = table
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    assert decoded(out.getvalue().encode(), "csv") == [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", []),
        (b"a,b\r\n", []),
        (b'a,b\r\n1,"x\r\n""y"""\r\n', [{"a": "1", "b": 'x\r\n"y"'}]),
        (b"\xef\xbb\xbfa\n1\n\n2", [{"a": "1"}, {"a": "2"}]),
    ],
)
def test_tables(body: bytes, value: Any) -> None:
    assert decoded(body, "csv") == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"a,b\n1\n", "line 2 has 1 fields, the first 2"),
        (b"a\n1,2\n", "line 2 has 2 fields, the first 1"),
        (b"a,a\n1,2\n", "each once"),
        (b'a\n"1', "no CSV"),
        (b'a\n"1"2', "no CSV"),
        (b"a\n" + b"x" * 131_073, "field"),
        (b"a\n" + b"1\n" * 100_001, "100000 rows"),
        (b",".join(b"c%d" % i for i in range(1001)), "1000 columns"),
        (b"a\n\xff", "utf-8"),
    ],
    ids=lambda one: repr(one[:20]),
)
def test_bad_tables(body: bytes, why: str) -> None:
    assert why in refused(body, "csv")


def test_a_table_does_not_become_a_multiple_of_itself() -> None:
    # Its header is named in each row: 100 KB would become 2 GB.
    with pytest.raises(PartFailure, match="part-too-large"):
        decode_body(b"x" * 50_000 + b"\n" + b"1\n" * 50_000, None, "csv")


# -- what is not installed

PART = """
[[listeners]]
bind = "127.0.0.1:0"
[upstreams.shop]
endpoints = ["127.0.0.1:9001"]
[[routes]]
name = "page"
[routes.aggregate.parts.only]
upstream = "shop"
jmespath = "length(items"
"""


def test_an_expression_that_is_none_is_told_with_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        loads(PART, "gateway.toml")
    text = str(caught.value)
    assert "gateway.toml:10:" in text
    assert "more is expected at its end (at character 13)" in text


def test_without_the_extra_the_configuration_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert missing("xml") is None
    assert expressions.check("a") is None
    for name in ("jmespath", "defusedxml"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    sys.path_importer_cache.clear()
    assert "pip install 'fastgate[aggregate]'" in (missing("xml") or "")
    assert "pip install 'fastgate[aggregate]'" in (expressions.check("a") or "")
    assert [how for how in ("auto", "json", "text", "base64", "form", "csv") if missing(how)] == []
    with pytest.raises(ConfigError, match="not installed"):
        loads(PART, "gateway.toml")


def test_the_bounds_are_as_the_page_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "aggregation-shapes.md").read_text()
    for bound in (decoders.MAX_FORM_FIELDS, decoders.MAX_CSV_ROWS, decoders.MAX_XML_NODES):
        assert f"{bound:,} " in page
    assert f"{decoders.MAX_XML_DEPTH} levels and" in page
    assert f"{expressions.MAX_LENGTH:,} characters and\n{expressions.MAX_DEPTH} levels" in page
