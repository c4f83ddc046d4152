"""Structured fields (RFC 9651): read strictly, written canonically."""

from __future__ import annotations

import pytest

from fastgate.plugins._structured import (
    FieldError,
    parse_dictionary,
    parse_item,
    parse_list,
    write_dictionary,
)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            'a=1, b=-2.50;x, c="q\\"\\\\", d=t*/:, e=:YQ==:, f=?0, g, h=@-5, i=(1 "a";b  c);d=1.0',
            'a=1, b=-2.5;x, c="q\\"\\\\", d=t*/:, e=:YQ==:, f=?0, g, h=@-5, i=(1 "a";b c);d=1.0',
        ),
        ('a=%"caf%c3%a9 %25%22"', 'a=%"caf%c3%a9 %25%22"'),
        ("  a=1 \t,\t b=?1;c=?1  ", "a=1, b;c"),
        ("", ""),
    ],
)
def test_dictionaries_are_written_canonically(text: str, written: str) -> None:
    assert write_dictionary(parse_dictionary(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "a=",
        "a=1,",
        ",a=1",
        "a=1 b=2",
        "A=1",
        "1=a",
        "a=1;",
        "a=1; B",
        "a=(1",
        "a=(1)2",
        'a=(1"x")',
        'a="x',
        'a="\u00e4"',
        'a="\\n"',
        "a=:YQ:",
        "a=:YR==:",
        "a=:Y Q=:",
        "a=?2",
        "a=1.",
        "a=.5",
        "a=--1",
        "a=1.2345",
        "a=1234567890123456",
        "a=1234567890123.5",
        "a=@1.5",
        "a=\u0661",
        'a=%"%C3%A9"',
        'a=%"%c3"',
        "a=1,a=2",
        "a;b;b",
        "a=((1))",
        "a=1\n",
    ],
)
def test_what_is_no_dictionary(text: str) -> None:
    with pytest.raises(FieldError):
        parse_dictionary(text)


def test_items_and_lists_end_where_they_end() -> None:
    assert [member[0] for member in parse_list("1, a;b=2, :YQ==:")] == [1, "a", b"a"]
    for text in ("1 2", "1, 2", ""):
        with pytest.raises(FieldError):
            parse_item(text)
