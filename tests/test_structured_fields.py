"""Structured fields (RFC 9651): read strictly, written canonically."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate.plugins._structured import (
    Bare,
    Date,
    DisplayString,
    FieldError,
    Item,
    Token,
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


PIECES = [*'ab*=;,() \t"\\:@%-1é', "?1", "?0", "12.5", "YQ=="]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_dictionary_or_an_error_and_what_is_written_reads_the_same(text: str) -> None:
    try:
        found = parse_dictionary(text)
    except FieldError:
        return
    written = write_dictionary(found)
    assert parse_dictionary(written) == found
    assert write_dictionary(parse_dictionary(written)) == written


@given(
    st.dictionaries(
        st.from_regex(r"[a-z*][a-z0-9_\-.*]{0,5}", fullmatch=True),
        st.one_of(
            st.integers(-(10**15) + 1, 10**15 - 1),
            st.booleans(),
            st.binary(max_size=9),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9),
            st.text(max_size=9).map(DisplayString),
            st.from_regex(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]{0,5}", fullmatch=True).map(Token),
            st.integers(-(10**14), 10**14).map(Date),
        ),
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_values_come_back_as_they_were_with_their_types(values: dict[str, Bare]) -> None:
    written = write_dictionary({key: Item(value, {"p": value}) for key, value in values.items()})
    found = parse_dictionary(written)
    assert {key: member[0] for key, member in found.items()} == values
    for key, member in found.items():
        assert type(member[0]) is type(values[key])
        assert member.params == {"p": values[key]}
