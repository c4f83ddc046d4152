"""What a line of the access log looks like, whatever was sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgate._core import ACCESS_LOG_FIELDS, AccessLog, SampleExchange, parse_log_format


def access_log(path: str = "stderr", **changes: object) -> AccessLog:
    config: dict[str, object] = {
        "enabled": True,
        "path": path,
        "format": "json",
        "redact_headers": (),
        "redact_query": (),
        "headers": (),
        "buffer": 65536,
    }
    return AccessLog(SimpleNamespace(**(config | changes)))


def read(exchange: SampleExchange, **changes: object) -> dict[str, Any]:
    line = access_log(**changes).line(exchange)  # type: ignore[arg-type]
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def full(**changes: object) -> SampleExchange:
    fields: dict[str, object] = {
        "request_id": "0af7651916cd43dd8448eb211c80319c",
        "listener": "public",
        "route": "orders",
        "upstream": "backend",
        "endpoint": "127.0.0.1:9001",
        "method": "GET",
        "target": "/orders/1?page=2",
        "host": "api.example.com",
        "user_agent": "curl/7.88.1",
        "tls": "TLSv1.3",
        "tls_cipher": "TLS_AES_128_GCM_SHA256",
        "sni": "api.example.com",
        "consumer": "ann",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "detail": "ECONNRESET",
        "client": "203.0.113.7",
        "client_port": 51234,
        "status": 502,
        "reason": "upstream-reset",
        "attempts": 2,
        "bytes_in": 10,
        "bytes_out": 1234,
        "start_unix_ns": 1763845848_123_456_789,
        "queue_ns": 0,
        "connect_ns": 1_499,
        "upstream_head_ns": 1_234_567,
        "total_ns": 61_000_999_500,
    }
    return SampleExchange(**(fields | changes))  # type: ignore[arg-type]


def test_a_json_line_names_every_field_in_order() -> None:
    line = read(full())
    assert line == {
        "time": "2025-11-22T21:10:48.123Z",
        "request_id": "0af7651916cd43dd8448eb211c80319c",
        "listener": "public",
        "client": "203.0.113.7",
        "client_port": 51234,
        "method": "GET",
        "path": "/orders/1",
        "query": "page=2",
        "host": "api.example.com",
        "protocol": "HTTP/1.1",
        "route": "orders",
        "upstream": "backend",
        "endpoint": "127.0.0.1:9001",
        "attempts": 2,
        "status": 502,
        "reason": "upstream-reset",
        "detail": "ECONNRESET",
        "bytes_in": 10,
        "bytes_out": 1234,
        "time_queue": 0.0,
        "time_connect": 0.000001,
        "time_upstream_head": 0.001235,
        "time_total": 61.001,
        "tls": "TLSv1.3",
        "tls_cipher": "TLS_AES_128_GCM_SHA256",
        "sni": "api.example.com",
        "user_agent": "curl/7.88.1",
        "consumer": "ann",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    assert (*line, "headers") == ACCESS_LOG_FIELDS


def test_what_is_absent_is_null() -> None:
    line = read(SampleExchange(http_minor=0))
    kept = {name: value for name, value in line.items() if value is not None}
    assert kept == {
        "time": "1970-01-01T00:00:00.000Z",
        "protocol": "HTTP/1.0",
        "attempts": 0,
        "status": 0,
        "bytes_in": 0,
        "bytes_out": 0,
    }
    # An empty query is not the same as none.
    assert read(full(target="/a?"))["query"] == ""
    assert read(full(target="/a"))["query"] is None
    assert read(full(client="2001:db8::1"))["client"] == "2001:db8::1"


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
@example(datetime(2000, 2, 29, 23, 59, 59, 999999))
@example(datetime(2100, 2, 28, 23, 59, 59))
@example(datetime(2100, 3, 1))
@settings(max_examples=200, deadline=None)
def test_times_are_rfc_3339_in_utc(moment: datetime) -> None:
    start = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000
    expected = moment.replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert read(SampleExchange(start_unix_ns=start))["time"] == expected


def test_the_cached_second_is_not_used_for_another() -> None:
    log = access_log(format="$time")
    starts = [1_000_000_000, 1_999_999_999, 2_000_000_000, 1_500_000_000]
    lines = [log.line(SampleExchange(start_unix_ns=start)).decode()[17:-1] for start in starts]
    assert lines == ["01.000Z", "01.999Z", "02.000Z", "01.500Z"]


@given(st.integers(0, 2**63 - 1000))
@example(499)
@example(500)
@example(999_999_499)
@example(999_999_500)
@settings(max_examples=100, deadline=None)
def test_durations_are_seconds_rounded_to_microseconds(ns: int) -> None:
    line = access_log(format="$time_total").line(SampleExchange(total_ns=ns)).decode()
    us = (ns + 500) // 1000
    assert line == f"{us // 1_000_000}.{us % 1_000_000:06d}\n"


@given(st.integers(-(2**62), 2**62))
@example(0)
@example(9)
@example(10)
@example(99)
@example(100)
@example(-1)
@settings(max_examples=100, deadline=None)
def test_numbers(number: int) -> None:
    assert access_log(format="$bytes_out").line(SampleExchange(bytes_out=number)) == f"{number}\n".encode()


hostile = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [b"\r\n", b'"', b"\\", b"\x7f", b"\x1b[2J", b"plain te", b"xt", "é".encode(), b"\xff", b"%0a"]
        )
    ).map(b"".join),
)


def decoded(raw: bytes) -> str:
    """Each byte sequence that is UTF-8 as that, each other byte as latin-1 (see out_json)."""
    text = ""
    while raw:
        for length in (4, 3, 2, 1):
            try:
                character = raw[:length].decode()
            except UnicodeDecodeError:
                continue
            if len(character) == 1:
                text += character
                raw = raw[length:]
                break
        else:
            text += raw[:1].decode("latin-1")
            raw = raw[1:]
    return text


@given(hostile)
@example(b"seven77\n")
@example(b"eight888\n")
@example(b"1234567\xc3\xa9")
@example(b"12345678\xc3\xa9" * 3)
@settings(max_examples=300, deadline=None)
def test_every_text_survives_json_and_never_ends_the_line(raw: bytes) -> None:
    path = raw.replace(b"?", b"!")
    line = read(
        SampleExchange(
            request_id=raw,
            listener=raw,
            route=raw,
            upstream=raw,
            endpoint=raw,
            method=raw,
            target=path + b"?" + raw,
            host=raw,
            user_agent=raw,
            consumer=raw,
            tls=raw,
            detail=raw,
            headers=[("x", raw), ("x", raw)],
        ),
        headers=("x",),
    )
    expected = decoded(raw)
    for name in (
        "request_id",
        "listener",
        "route",
        "upstream",
        "endpoint",
        "method",
        "query",
        "host",
        "user_agent",
        "consumer",
        "tls",
        "detail",
    ):
        assert line[name] == expected
    assert line["path"] == decoded(path)
    assert line["headers"] == {"x": f"{expected}, {expected}"}


@given(hostile)
@settings(max_examples=200, deadline=None)
def test_no_text_ends_a_templates_line_or_a_quoted_part_of_it(raw: bytes) -> None:
    log = access_log(format='"$method" "$path" "$query" "$user_agent" "$host" "$detail"', redact_query=("a",))
    line = log.line(SampleExchange(method=raw, target=raw + b"?" + raw, user_agent=raw, host=raw, detail=raw))
    assert line.endswith(b"\n")
    text = line[:-1].decode()
    assert all(character.isprintable() or ord(character) > 159 for character in text.replace("\u0085", ""))
    assert min(line[:-1], default=32) >= 32
    # As JSON strings one behind another, which is what the escapes are those of.
    decoder, at, parts = json.JSONDecoder(), 0, 0
    while at < len(text):
        _, at = decoder.raw_decode(text, at)
        at += 1
        parts += 1
    assert parts == 6


def test_a_long_line_is_whole() -> None:
    target = "/" + "\n" * 100_000 + "?" + "é" * 100_000
    line = read(full(target=target.encode("latin-1"), headers=[("x", "\x01" * 50_000)]), headers=("x",))
    assert line["path"] == "/" + "\n" * 100_000
    assert line["query"] == "é" * 100_000
    assert line["headers"]["x"] == "\x01" * 50_000


@pytest.mark.parametrize(
    ("query", "logged"),
    [
        ("token=s", "token=[redacted]"),
        ("a=1&token=s&b=2", "a=1&token=[redacted]&b=2"),
        ("TOKEN=s", "TOKEN=[redacted]"),
        ("%74oken=s", "%74oken=[redacted]"),
        ("%54%4F%4b%45%4E=s", "%54%4F%4b%45%4E=[redacted]"),
        ("token=s&token=t", "token=[redacted]&token=[redacted]"),
        ("a;token=s", "a;token=[redacted]"),
        ("token=s=t", "token=[redacted]"),
        ("token=", "token=[redacted]"),
        ("my+key=s&my%20key=t", "my+key=[redacted]&my%20key=[redacted]"),
        ("token", "token"),
        ("xtoken=s&tokenx=s&tok=s", "xtoken=s&tokenx=s&tok=s"),
        ("%7=s&%zz=s&%=s&token%=s", "%7=s&%zz=s&%=s&token%=s"),
        ("", ""),
        ("&&=&", "&&=&"),
        ("k=1&k=2", "k=[redacted]&k=[redacted]"),
    ],
)
def test_query_parameters_are_redacted_by_decoded_name(query: str, logged: str) -> None:
    redact = ("token", "my key", "k")
    assert read(full(target=f"/a?{query}"), redact_query=redact)["query"] == logged
    line = access_log(format="$path?$query", redact_query=redact).line(full(target=f"/a?{query}"))
    assert line == f"/a?{logged}\n".encode()


@given(st.lists(st.sampled_from([b"k", b"\x01", b"=", b"&", b";", b"%6b", b"K"]), max_size=200).map(b"".join))
@settings(max_examples=200, deadline=None)
def test_redaction_never_outgrows_its_room(query: bytes) -> None:
    expected = []
    for at, part in enumerate(query.replace(b";", b"&").split(b"&")):
        name, equals, _ = part.partition(b"=")
        secret = equals and name.replace(b"%6b", b"k").lower() in (b"k", b"\x01")
        expected.append(decoded(name + b"=[redacted]" if secret else part))
        assert at <= len(query)
    logged = read(full(target=b"/?" + query), redact_query=("k", "\x01"))["query"]
    assert logged.replace(";", "&") == "&".join(expected)


def test_headers_are_logged_by_name_and_redacted() -> None:
    exchange = full(
        headers=[
            ("AUTHORIZATION", "secret"),
            ("x-a", "1"),
            ("X-A", "2"),
            ("authorization", "secret"),
            ("b", "3"),
        ]
    )
    changes: dict[str, Any] = {
        "headers": ("Authorization", "X-A", "x-none"),
        "redact_headers": ("authorization", "user-agent"),
    }
    line = read(exchange, **changes)
    assert line["headers"] == {"authorization": "[redacted]", "x-a": "1, 2", "x-none": None}
    assert line["user_agent"] == "[redacted]"
    template = access_log(format="$headers $user_agent", **changes).line(exchange)
    assert template == b'{"authorization":"[redacted]","x-a":"1, 2","x-none":null} [redacted]\n'
    assert b"secret" not in template


def test_a_template() -> None:
    log = access_log(
        format='${client}:$client_port [$time] "$method $path" $$$status ${time_connect}s $tls $reason'
    )
    assert log.line(full(reason="no-route")) == (
        b'203.0.113.7:51234 [2025-11-22T21:10:48.123Z] "GET /orders/1" $502 0.000001s TLSv1.3 no-route\n'
    )
    assert log.line(SampleExchange()) == b'-:- [1970-01-01T00:00:00.000Z] "- -" $0 -s - -\n'


@pytest.mark.parametrize("name", ACCESS_LOG_FIELDS)
def test_every_field_can_stand_in_a_template(name: str) -> None:
    line = json.loads(access_log(headers=("x",)).line(full()))
    text = access_log(format=f"<${name}>", headers=("x",)).line(full()).decode()
    value = line[name]
    if isinstance(value, float):
        assert float(text[1:-2]) == value
    else:
        assert text == f"<{json.dumps(value, separators=(',', ':')) if isinstance(value, dict) else value}>\n"


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("$nonsense", "no field \\$nonsense"),
        ("a $", "no field \\$"),
        ("${status", "no closing brace"),
        ("$status\n", "control character"),
        ("nothing", "names no field"),
        ("", "names no field"),
        ("$$status", "names no field"),
    ],
)
def test_bad_templates(format: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_log_format(format)
    with pytest.raises(ValueError, match=message):
        access_log(format=format)


def test_pieces_of_a_template() -> None:
    assert parse_log_format("a $$ $status${time}b") == [
        ("literal", "a $ "), ("field", "status"), ("field", "time"), ("literal", "b"),
    ]  # fmt: skip


def test_a_disabled_log_opens_and_writes_nothing(tmp_path: Path) -> None:
    log = access_log(str(tmp_path / "log"), enabled=False)
    log.log(full())
    log.flush()
    log.reopen()
    assert log.close(1)
    assert (log.written, log.dropped, log.writer) == (0, 0, None)
    assert list(tmp_path.iterdir()) == []
