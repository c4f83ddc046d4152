"""Loading: defaults filled in, everything typed, every error told, and never a traceback."""

from __future__ import annotations

import os
import random
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastgate.config import ConfigError, Sources, load, loads, model
from fastgate.config.diff import difference
from fastgate.config.loading import MAX_FILE_BYTES
from fastgate.config.model import Condition, Endpoint, HeaderRules, Listener, Match, Rate, RateLimit, Secret

GOLDEN = Path(__file__).parent / "golden" / "config"
BASE = '[[listeners]]\nbind = ":8080"\n[[routes]]\nname = "a"\n'


def only_route(text: str) -> model.Route:
    [route] = loads(BASE + text).config.routes
    return route


def errors_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, "x.toml")
    return [str(problem) for problem in caught.value.problems]


def test_defaults_are_filled_in() -> None:
    config = loads(BASE + "respond = {}\n", "dir/x.toml").config
    assert config.source == "dir/x.toml"
    assert config.server == model.Server()
    assert config.listeners == (Listener(name=":8080", bind=":8080", host="", port=8080),)
    assert config.listeners[0].timeouts.keep_alive == 75 * 10**9
    assert config.listeners[0].body_min_rate == 500
    assert config.routes[0].respond == model.Respond()
    assert config.routes[0].limits.body is None


def upstream_of(text: str) -> model.Upstream:
    return loads(f"{BASE}upstream = 'a'\n[upstreams.a]\n{text}").config.upstreams["a"]


@pytest.mark.parametrize(
    ("written", "address", "host", "port"),
    [
        ("https://orders.internal", "orders.internal:443", "orders.internal", 443),
        ("https://Orders.internal:8443", "Orders.internal:8443", "orders.internal", 8443),
        ("https://[fd00::1]", "[fd00::1]:443", "fd00::1", 443),
        ("https://127.0.0.1:1", "127.0.0.1:1", "127.0.0.1", 1),
        ("http://orders.internal", "orders.internal:80", "orders.internal", 80),
        ("http://[fd00::1]:8080", "[fd00::1]:8080", "fd00::1", 8080),
    ],
)
def test_endpoints_with_a_scheme(written: str, address: str, host: str, port: int) -> None:
    upstream = upstream_of(f'endpoints = ["{written}"]')
    scheme = written.partition(":")[0]
    assert upstream.endpoints == (Endpoint(address=address, host=host, port=port, scheme=scheme),)
    assert upstream.tls == (model.UpstreamTls() if scheme == "https" else None)


def test_tls_of_an_upstream_is_a_switch_too() -> None:
    [on, table, off, absent] = [
        upstream_of(f'endpoints = ["a:1"]\n{text}').tls
        for text in ("tls = true", "tls = {}", "tls = false", "")
    ]
    assert on == table == model.UpstreamTls()
    assert off is absent is None


def test_ways_to_write_tls_are_no_difference() -> None:
    """`fastgate diff` tells what changes."""

    def sources(text: str) -> Sources:
        return loads(f'{BASE}upstream = "a"\n[upstreams.a]\nendpoints = ["a:1"]\n{text}\n').config.sources

    assert not difference(sources("tls = true"), sources("tls = {}"))
    assert not difference(sources("tls = false"), sources(""))
    assert difference(sources("tls = true"), sources(""))


def test_the_whole_contract() -> None:
    config = load(str(GOLDEN / "valid" / "contract.toml"), strict=True).config
    assert config.upstreams["orders"].name == "orders"
    assert config.upstreams["orders"].endpoints[1] == Endpoint(
        address="127.0.0.1:9002", host="127.0.0.1", port=9002, weight=2, zone="a"
    )
    assert config.plugins["limit"] == RateLimit(
        name="limit", rate=Rate(100, 10**9), burst=200, shared_as=str(GOLDEN / "valid" / "contract.toml")
    )
    office = config.plugins["office"]
    assert isinstance(office, model.IpFilter)
    assert office.allow == ("10.0.0.0/8", "192.0.2.0/24")
    assert office.block == ("198.51.100.7/32",)
    assert config.routes[1].request_headers == HeaderRules(
        set={"x-a": "1"}, add={"x-b": "2"}, remove=("x-c",)
    )


def test_every_default_of_the_model_is_what_the_contract_writes() -> None:
    """The contract's file writes the defaults out; without those lines the result is the same."""
    written = load(str(GOLDEN / "valid" / "contract.toml")).config
    assert written.server == model.Server(region="eu", zone="eu-a")
    assert written.admin == model.Admin(bind="127.0.0.1:9901", host="127.0.0.1", port=9901)
    assert written.dns == model.Dns()
    assert written.access_log == model.AccessLog()
    assert written.listeners[0] == Listener(name="public", bind="127.0.0.1:8080", host="127.0.0.1", port=8080)
    upstream = written.upstreams["orders"]
    assert upstream == model.Upstream(name="orders", endpoints=upstream.endpoints)
    every = written.upstreams["all"]
    assert every == model.Upstream(
        name="all",
        endpoints=(
            Endpoint(address="srv:_http._tcp.orders.internal", srv="_http._tcp.orders.internal"),
            Endpoint(address="127.0.0.1:9004", host="127.0.0.1", port=9004, region="us", zone="us-a"),
        ),
        endpoints_file="endpoints.json",
        balance="maglev",
        hash=model.Hash(),
        sticky=model.Sticky(secret="change me"),
        regions=model.Regions(),
        health=model.HealthCheck(),
        outlier=model.Outlier(),
        retry=model.Retry(),
        hedge=model.Hedge(),
        breaker=model.Breaker(max_retries=1),
        concurrency=model.Concurrency(adaptive=True),
    )
    route = written.routes[0]
    assert route.retry == model.Retry(
        attempts=3,
        on=("connect-failure", "refused", "reset", "timeout", "status"),
        per_try_timeout=2 * 10**9,
        unsafe="idempotency-key",
    )
    assert route.fallback == model.Fallback(
        on=("no-endpoint", "connect-failure", "reset", "timeout", "overload", "status"),
        respond=model.Respond(status=503, body="later"),
    )
    assert route.fault == model.Fault(delay=10**8, abort=503, abort_percent=0)
    assert route.mirror == model.Mirror(upstream="orders")
    assert route.split == model.Split(
        key=("cookie:uid", "client-ip"),
        override=model.SplitOverride(header="x-version", cookie="version"),
        to=(
            model.SplitTarget(name="all", upstream="all", weight=95),
            model.SplitTarget(
                name="canary", upstream="next", weight=5, rollback=model.Rollback(baseline="all")
            ),
        ),
    )


def test_conditions_and_matches() -> None:
    route = only_route(
        'respond = {}\nmatch = { host = "A.example.com", headers = { X-A = "1", x-b = true }, '
        'query = { q = { regex = "[0-9]+" } }, methods = ["GET", "GET"] }\n'
    )
    assert route.match == Match(
        host=("a.example.com",),
        methods=("GET",),
        headers={"x-a": Condition("equal", "1"), "x-b": Condition("present")},
        query={"q": Condition("regex", "[0-9]+")},
    )


def test_burst_is_a_second_of_the_rate_and_at_least_one() -> None:
    text = BASE + 'respond = {}\nplugins = ["p"]\n[plugins.p]\nuse = "rate-limit"\nrate = '
    bursts = {rate: loads(f'{text}"{rate}"\n').config.plugins["p"] for rate in ("100/s", "120/m", "10/m")}
    assert {r: p.burst for r, p in bursts.items() if isinstance(p, RateLimit)} == {
        "100/s": 100,
        "120/m": 2,
        "10/m": 1,
    }


def only_upstream(text: str) -> model.Upstream:
    [upstream] = loads(BASE + f'upstream = "u"\n[upstreams.u]\n{text}\n').config.upstreams.values()
    return upstream


def test_consistent_hashing_has_a_key_and_nothing_else_has() -> None:
    endpoints = 'endpoints = ["a:1"]\n'
    assert only_upstream(endpoints).hash is None
    assert only_upstream(endpoints + 'balance = "ring"').hash == model.Hash(key=("client-ip",))
    given = only_upstream(
        endpoints + 'balance = "maglev"\nhash = { key = "header:X-User", bounded_load = 0 }'
    )
    assert given.hash == model.Hash(key=("header:x-user",), bounded_load=0)


def test_what_an_arm_is_compared_with_is_the_heaviest_other_one() -> None:
    route = only_route(
        'split = { to = [{ upstream = "a", weight = 1, rollback = {} }, { upstream = "b", weight = 2 }, '
        '{ name = "c", upstream = "b", weight = 3, rollback = {} }, '
        '{ name = "d", upstream = "b", weight = 0, rollback = { baseline = "a" } }] }\n'
        '[upstreams]\na = { endpoints = ["a:1"] }\nb = { endpoints = ["b:1"] }\n'
    )
    assert route.split is not None
    assert [(arm.name, arm.rollback and arm.rollback.baseline) for arm in route.split.to] == [
        ("a", "c"),
        ("b", None),
        ("c", "b"),
        ("d", "a"),
    ]


def test_percentages_may_have_a_fraction() -> None:
    upstream = only_upstream('endpoints = ["a:1"]\npanic_threshold = 33\nhedge = { max_percent = 0.5 }')
    assert (upstream.panic_threshold, type(upstream.panic_threshold)) == (33.0, float)
    assert upstream.hedge == model.Hedge(max_percent=0.5)


def test_expected_statuses_are_ranges() -> None:
    health = only_upstream('endpoints = ["a:1"]\nhealth = { expect = [204, "200", "300-399"] }').health
    assert health is not None
    assert health.expect == ((204, 204), (200, 200), (300, 399))
    one = only_upstream('endpoints = ["a:1"]\nhealth = { expect = 200 }').health
    assert one is not None
    assert one.expect == ((200, 200),)


def test_names_of_srv_records_are_endpoints() -> None:
    [one, other] = only_upstream(
        'endpoints = ["srv:_HTTP._tcp.a.", { address = "srv:_http._tcp.b", region = "eu" }]'
    ).endpoints
    assert (one.srv, one.host, one.port, one.unix_path) == ("_http._tcp.a", "", 0, None)
    assert (other.srv, other.region) == ("_http._tcp.b", "eu")


def test_a_secret_of_a_sticky_cookie_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGATE_TEST_TOKEN", "hunter2")
    sticky = only_upstream(
        'endpoints = ["a:1"]\nsticky = { secret = { env = "FASTGATE_TEST_TOKEN" } }'
    ).sticky
    assert sticky is not None
    assert isinstance(sticky.secret, Secret)
    assert sticky.secret.reveal() == "hunter2"
    assert "hunter" not in repr(sticky)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "127.9.9.9:9901", "[::1]:9901", "unix:/run/a.sock"])
def test_the_admin_api_listens_on_loopback_and_sockets(bind: str) -> None:
    admin = loads(f'[admin]\nbind = "{bind}"\n' + BASE + "respond = {}\n").config.admin
    assert admin is not None
    assert (admin.bind, bool(admin.unix_path)) == (bind, bind.startswith("unix:"))


def test_name_servers_get_their_port() -> None:
    text = '[dns]\nservers = ["10.0.0.2", "10.0.0.2:5353", "fd00::2", "[fd00::2]:5353"]\n'
    assert loads(text + BASE + "respond = {}\n").config.dns.servers == (
        "10.0.0.2:53",
        "10.0.0.2:5353",
        "[fd00::2]:53",
        "[fd00::2]:5353",
    )


def test_upstreams_of_splits_fallbacks_and_mirrors_are_used() -> None:
    names = "abcd"
    upstreams = "".join(f'[upstreams.{name}]\nendpoints = ["{name}:1"]\n' for name in names)
    route = (
        'split = { to = [{ upstream = "a", weight = 1 }, { upstream = "b", weight = 1 }] }\n'
        'fallback = { upstream = "c" }\nmirror = { upstream = "d" }\n'
    )
    assert not loads(BASE + route + upstreams).warnings


def test_secrets_are_read_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGATE_TEST_TOKEN", "hunter2")
    (tmp_path / "token").write_text("hunter3\n")
    file = tmp_path / "gateway.toml"
    file.write_text(
        BASE + 'upstream = "u"\n[routes.request_headers.set]\na = { env = "FASTGATE_TEST_TOKEN" }\n'
        'b = { file = "token" }\n[upstreams.u]\nendpoints = ["127.0.0.1:1"]\n'
    )
    config = load(str(file)).config
    secrets = config.routes[0].request_headers.set
    assert [s.reveal() for s in secrets.values() if isinstance(s, Secret)] == ["hunter2", "hunter3"]
    assert "hunter" not in repr(config)


def test_the_configuration_is_immutable() -> None:
    config = loads(BASE + "respond = {}\n").config
    with pytest.raises(AttributeError):
        config.source = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        config.routes[0].match.path = "/"  # type: ignore[misc]


def test_every_struct_is_frozen() -> None:
    structs = [v for v in vars(model).values() if isinstance(v, type) and issubclass(v, msgspec.Struct)]
    assert len(structs) > 20
    assert all(s.__struct_config__.frozen for s in structs if s is not msgspec.Struct)


def test_warnings_come_with_the_configuration_and_strict_makes_them_errors() -> None:
    text = BASE + 'respond = {}\n[upstreams.spare]\nendpoints = ["127.0.0.1:1"]\n'
    [warning] = loads(text).warnings
    assert warning.severity == "warning"
    assert (warning.line, warning.column) == (6, 12)
    with pytest.raises(ConfigError) as caught:
        loads(text, strict=True)
    assert [p.severity for p in caught.value.problems] == ["error"]


def test_lines_count_the_same_with_crlf_and_a_byte_order_mark() -> None:
    text = BASE + 'respond = { status = 1 }\nmatch = { prefix = "a" }\n'
    plain = errors_of(text)
    assert plain[0].startswith("x.toml:5:22: respond.status")
    assert errors_of("\ufeff" + text.replace("\n", "\r\n")) == plain


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "x.toml:1:1: not UTF-8"),
        (b"a = 1\n\0", "x.toml:2:1: a NUL character"),
        (b"x = " + b"[" * 100_000, "x.toml:1:1: TOML: arrays or tables are nested too deeply"),
        (b"x = " + b"{a=" * 100_000, "x.toml:1:1: TOML: arrays or tables are nested too deeply"),
        (b"a." * 500 + b"a = 1", "x.toml:1:1: unknown key"),
        (b"x = " + b"1" * 5000, "x.toml:1:5: TOML: an integer of thousands of digits"),
        (b"x = 2024-02-31", "x.toml:1:5: TOML: "),
        (b"#" * (MAX_FILE_BYTES + 1), "x.toml: is larger than 16 MiB"),
    ],
    ids=["utf-16", "nul", "arrays", "tables", "dotted", "digits", "date", "huge"],
)
def test_hostile_files_are_errors(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load("x.toml")
    assert str(caught.value.problems[0]).startswith(message)


@pytest.mark.parametrize("path", ["not-there.toml", ".", "\0", "x" * 5000])
def test_files_that_cannot_be_read_are_errors(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(path)
    [problem] = caught.value.problems
    assert problem.line == 0
    assert "cannot be read" in str(problem)


def test_a_fifo_of_endless_bytes_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError) as caught:
        load("/dev/zero")
    assert "is larger than" in str(caught.value)


def test_all_errors_are_told_at_once_in_the_order_of_the_file() -> None:
    errors = errors_of((GOLDEN / "many_errors.toml").read_text())
    lines = [int(e.split(":")[1]) for e in errors]
    assert len(errors) > 20
    assert lines == sorted(lines)


def test_relative_files_belong_to_the_directory_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "nets.txt").write_text("10.0.0.0/8 # office\r\n\r\n# all\r\n::1\r\n")
    (tmp_path / "conf" / "x.toml").write_text(
        BASE + 'respond = {}\nplugins = ["p"]\n[plugins.p]\nuse = "ip-filter"\n'
        'allow = ["::1"]\nallow_file = "nets.txt"\n'
    )
    monkeypatch.chdir(tmp_path)
    plugin = load(os.path.join("conf", "x.toml"), strict=True).config.plugins["p"]
    assert isinstance(plugin, model.IpFilter)
    assert plugin.allow == ("::1/128", "10.0.0.0/8")


def test_a_file_of_another_kind_gives_a_bounded_number_of_errors(tmp_path: Path) -> None:
    (tmp_path / "nets.txt").write_bytes(random.Random(1).randbytes(64) * 1000 + b"\nno\n" * 1000)
    (tmp_path / "x.toml").write_text(
        BASE + 'respond = {}\nplugins = ["p"]\n[plugins.p]\nuse = "ip-filter"\nallow_file = "nets.txt"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "x.toml"))
    assert 2 < len(caught.value.problems) < 30
    assert all(str(problem).isprintable() for problem in caught.value.problems)


# What stands in a valid file, to be broken in every way that hypothesis finds.
words = ["a", "orders", "limit", "/x/{id}", "/x", "10/s", "5s", "1KiB", "*.a", "regex", "127.0.0.1:1"]
keys = ["regex", "env", "file", "set", "path", "name", "x"]
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(words),
    st.lists(st.text(max_size=3) | st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(keys), st.text(max_size=3), max_size=2),
)
contract: dict[str, Any] = tomllib.loads((GOLDEN / "valid" / "contract.toml").read_text())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path] * bool(path) + [p for key, item in items for p in places(item, (*path, key))]


def written(value: Any) -> str:
    """As an inline TOML value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(str(k))} = {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value)


@given(st.lists(st.tuples(st.sampled_from(places(contract)), junk), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_document_is_a_crash(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = tomllib.loads((GOLDEN / "valid" / "contract.toml").read_text())
    for path, value in changes:
        here: Any = document
        try:
            for part in path[:-1]:
                here = here[part]
            if value is None:
                del here[path[-1]]
            else:
                here[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    text = "\n".join(f"{written(k)} = {written(v)}" for k, v in document.items())
    try:
        loaded = loads(text, str(GOLDEN / "valid" / "x.toml"))
    except ConfigError as error:
        problems = error.problems
        assert any(p.severity == "error" for p in problems)
    else:
        problems = loaded.warnings
    assert all(str(p).isprintable() and p.line >= 1 and p.column >= 1 for p in problems)
