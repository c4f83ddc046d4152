"""The benchmark suite's arithmetic and reports: from what load clients print to ratios, verdicts, files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest

from bench.__main__ import main, parser
from bench.load import LoadFailed, parse_fetch, parse_paced, parse_wrk, write_requests
from bench.machine import parse_cpu_model
from bench.model import BROWSER_HEADERS, Feature, Kind, Request, Sample, Shape
from bench.peers import PEERS
from bench.plan import Progress, Settings, plan
from bench.plot import to_svg
from bench.process import TICK, Cpu, parse_stat
from bench.report import Report, align, markdown_table, to_json, to_markdown, to_terminal
from bench.scenarios import BY_NAME, QUICK, SCENARIOS, TARGETS
from bench.stats import Results, spread, verdicts

WRK = """Running 1s test @ http://127.0.0.1:1234
  2 requests in 1.00s
result {"requests": 30000, "seconds": 1.500000, "bytes": 9, "connect": 1, "read": 2, "write": 3, \
"status": 4, "timeout": 5, "p50": 100, "p90": 150, "p99": 200, "p999": 300}
"""


def sample(scenario: str, peer: str, turn: int, **values: float) -> Sample:
    return Sample(scenario, peer, turn, values)


def report_of(*samples: Sample, subject: str = "fastgate") -> Report:
    machine = {
        "cpu": "A <fast> & cheap one",
        "cores": "2",
        "kernel": "6",
        "date": "today",
        "nginx": "nginx/1",
    }
    return Report(Results(samples), machine, {"rounds": 2, "seconds": 4}, {"envoy": "not there"}, subject)


def two_rounds() -> list[Sample]:
    """Round 2 is slower for everybody: a ratio of medians and a median of ratios differ."""
    return [
        sample("small-get", "fastgate", 1, cpu_us=9.0, busy=0.9),
        sample("small-get", "nginx", 1, cpu_us=10.0, busy=0.9),
        sample("small-get", "nginx", 2, cpu_us=40.0, busy=0.9),
        sample("small-get", "fastgate", 2, cpu_us=20.0, busy=0.9),
    ]


# --- what load clients print ---


def test_wrk_result_is_read_with_every_kind_of_error() -> None:
    result = parse_wrk(WRK)
    assert result.rate == 20000
    assert (result.p50, result.p99, result.p999) == (100, 200, 300)
    assert (result.errors, result.refused) == (11, 4)
    assert result.problems() == ["11 errors of connections", "4 answers were not 2xx"]


def test_wrk_without_a_result_is_an_error_that_quotes_it() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_run_without_answers_is_a_problem() -> None:
    assert parse_wrk(WRK.replace("30000", "0")).problems()[-1] == "no request was answered"


def test_paced_and_fetch_results_are_read() -> None:
    marks = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0}
    raw = {"due": 9, "answered": 7, "in_time": 6, "refused": 1, "errors": 0, "given_up": 1, "reconnects": 0,
           "statuses": {"200": 7, "503": 1}}  # fmt: skip
    result = parse_paced(json.dumps({**raw, "seconds": 2.0, "wait_us": marks, "service_us": marks}))
    assert (result.due, result.answered, result.in_time, result.given_up) == (9, 7, 6, 1)
    assert result.statuses == {200: 7, 503: 1}
    assert result.wait["p999"] == 4.0
    text = '{"bytes": 5, "answers": 1, "refused": 0, "errors": 0, "seconds": 1.0}'
    assert parse_fetch(text).bytes == 5
    with pytest.raises(LoadFailed, match="fetch printed no result: Killed"):
        parse_fetch("Killed")


def test_requests_are_written_with_their_lengths(tmp_path: object) -> None:
    path = write_requests(tmp_path / "requests", [b"GET /\n\n", b"POST"])  # type: ignore[operator]
    assert path.read_bytes() == b"7\nGET /\n\n4\nPOST"


# --- what the kernel tells ---


def test_stat_is_read_past_a_name_with_blanks_and_parentheses() -> None:
    assert parse_stat("12 (a) b (c) S 1 2 33 0 -1 0 0 0 0 0 71 82 0 0 20") == (33, 71, 82)


def test_cpu_is_exact_in_total_and_split_by_ticks() -> None:
    before = Cpu(1_000_000_000, 10, 30, frozenset({1}))
    after = Cpu(3_000_000_000, 20, 60, frozenset({1, 2}))
    assert list(after.since(before)) == pytest.approx([0.5, 1.5])


def test_cpu_falls_back_to_ticks_when_a_thread_ended() -> None:
    before = Cpu(1_000_000_000, 10, 30, frozenset({1, 2}))
    after = Cpu(1_100_000_000, 20, 60, frozenset({1}))
    assert sum(after.since(before)) == pytest.approx(40 / TICK)


def test_cpu_model_is_found() -> None:
    assert parse_cpu_model("processor\t: 0\nmodel name\t: Some CPU\n") == "Some CPU"
    assert parse_cpu_model("") == "unknown"


# --- requests and shapes ---


def test_the_browser_request_has_the_size_it_is_named_for() -> None:
    text = Request(headers=BROWSER_HEADERS).encode(999)
    assert text.count(b"\r\n") - 2 == 12
    assert 650 <= len(text) <= 750


def test_a_body_is_framed_by_its_length() -> None:
    head, _, body = Request(method="POST", body=10240).encode(0).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /svc/00000/items HTTP/1.1\r\nHost: api.example.com\r\n")
    assert b"Content-Length: 10240" in head
    assert len(body) == 10240


def test_prefixes_are_distinct_and_list_the_client_unless_told_otherwise() -> None:
    prefixes = Shape(ip_prefixes=1000).prefixes()
    assert len(set(prefixes)) == 1000
    assert prefixes[-1] == "127.0.0.0/8"
    assert "127.0.0.0/8" not in Shape(ip_prefixes=1000, client_listed=False).prefixes()


def test_features_follow_from_the_shape() -> None:
    assert Shape().features() == frozenset()
    survival = frozenset({Feature.ENDPOINTS, Feature.SURVIVAL})
    assert BY_NAME["resilient-8"].shape.features() == survival
    plugins = frozenset({Feature.PLUGINS})
    tls = frozenset({Feature.TLS})
    assert BY_NAME["tls-handshake-full"].shape.features() == tls | {Feature.ACCESS_LOG}
    assert BY_NAME["plugin-1"].shape.features() == plugins
    parts = frozenset({Feature.AGGREGATION})
    assert BY_NAME["aggregate-5"].shape.features() == parts
    assert BY_NAME["browser-full"].shape.features() == frozenset(Feature) - survival - plugins - tls - parts


def test_the_floor_ignores_features_but_answers_one_request_with_one() -> None:
    relay = PEERS["relay"]
    assert not relay.lacks(BY_NAME["browser-full"].shape)
    assert relay.lacks(BY_NAME["aggregate-5"].shape) == {Feature.AGGREGATION}
    assert BY_NAME["aggregate-5"].shape.part_paths() == {name: f"/parts/{name}/2k" for name in "abcde"}


# --- the plan ---


def test_every_peer_has_every_round_and_those_without_the_features_stay_out() -> None:
    steps = plan([BY_NAME["browser-full"]], list(PEERS.values()), rounds=5)
    for name in ("fastgate", "nginx", "haproxy", "envoy", "relay"):
        assert sorted(step.round for step in steps if step.peer.name == name) == [1, 2, 3, 4, 5]
    assert not [step for step in steps if step.peer.name in ("aiohttp", "proxy.py")]


def test_rounds_are_interleaved_in_changing_order() -> None:
    steps = plan([BY_NAME["small-get"]], list(PEERS.values()), rounds=5)
    orders = [tuple(step.peer.name for step in steps if step.round == turn) for turn in range(1, 6)]
    assert [step.round for step in steps] == sorted(step.round for step in steps)
    assert len(set(orders)) > 1


def test_scenarios_of_a_group_are_taken_side_by_side() -> None:
    group = [scenario for scenario in SCENARIOS if scenario.group == "routes"]
    steps = plan(group, [PEERS["nginx"], PEERS["haproxy"]], rounds=2)
    for first in range(0, len(steps), 3):
        three = steps[first : first + 3]
        assert len({(step.round, step.peer.name) for step in three}) == 1
        assert len({step.scenario.name for step in three}) == 3


def test_time_left_goes_by_what_was_measured() -> None:
    steps = plan([BY_NAME["small-get"]], [PEERS["nginx"]], rounds=3)
    progress = Progress(steps, Settings())
    assert progress.seconds_left() == pytest.approx(3 * Settings().cost(BY_NAME["small-get"]))
    progress.done(steps[0], 10.0)
    assert progress.seconds_left() == pytest.approx(20.0)


# --- medians, ratios, verdicts ---


def test_spread_is_the_median_with_its_range() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.count) == (2.5, 1.0, 10.0, 4)
    assert spread([]) is None


def test_ratios_are_paired_by_round() -> None:
    ratio = Results(two_rounds()).ratio("small-get", "fastgate", "nginx")
    assert ratio is not None
    assert [ratio.median, ratio.low, ratio.high] == pytest.approx([0.7, 0.5, 0.9])


def test_an_invalid_sample_counts_in_no_number() -> None:
    samples = two_rounds()
    samples[0].problems.append("broken")
    results = Results(samples)
    ratio = results.ratio("small-get", "fastgate", "nginx")
    assert ratio is not None
    assert (ratio.median, ratio.count) == (0.5, 1)
    assert results.failures() == [samples[0]]


def test_verdicts_of_all_three_kinds() -> None:
    samples = [
        *two_rounds(),
        sample("routes-1", "fastgate", 1, cpu_us=10.0),
        sample("routes-10000", "fastgate", 1, cpu_us=11.0),
        sample("idle-10000", "fastgate", 1, bytes_per_connection=4000.0),
    ]
    found = {verdict.target.describe(): verdict.reached for verdict in verdicts(Results(samples), "fastgate")}
    assert found == {
        "small-get: over nginx": True,
        "small-get: over haproxy": None,
        "small-get: over envoy": None,
        "routes-10000: over itself in routes-1": False,
        "idle-10000: over envoy": None,
        "idle-10000: absolute": True,
    }


def test_targets_and_quick_name_what_exists() -> None:
    assert {target.scenario for target in TARGETS} <= set(BY_NAME)
    assert {target.peer for target in TARGETS} - {""} <= set(PEERS)
    assert set(QUICK) <= set(BY_NAME)


# --- reports ---


def test_columns_are_aligned() -> None:
    assert align([["peer", "us"], ["a", "10.5"]]) == "peer    us\na     10.5"


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert markdown_table([["a", "b"], ["x", "y|z"]]).splitlines()[-1] == "| x | y\\|z |"


def test_terminal_and_markdown_show_ratio_verdict_and_what_went_wrong() -> None:
    samples = two_rounds()
    samples.append(Sample("small-get", "haproxy", 1, problems=["3 answers were not 2xx"]))
    samples[1].remarks.append("others used 40% of the peer's core")
    report = report_of(*samples)
    for text in (to_terminal(report), to_markdown(report)):
        assert "0.70 (0.50..0.90)" in text
        assert "reached" in text
        assert "small-get, haproxy, round 1: 3 answers were not 2xx" in text
    markdown = to_markdown(report)
    assert "envoy: not there" in markdown
    assert "small-get, nginx, round 1: others used 40%" in markdown
    assert all(note in markdown for note in PEERS["nginx"].notes)


def test_another_subject_has_ratios_and_no_verdicts() -> None:
    text = to_terminal(report_of(*two_rounds(), subject="nginx"))
    assert "nginx / it" in text
    assert "must reach" not in text


def test_a_target_may_be_several_times_a_number_and_more() -> None:
    def verdict(cpu_us: float) -> tuple[float, bool | None]:
        samples = [
            sample("plain-2k", "fastgate", 1, cpu_us=20.0),
            sample("aggregate-5", "fastgate", 1, cpu_us=cpu_us),
        ]
        [found] = [one for one in verdicts(Results(samples), "fastgate") if one.target.plus]
        assert found.measured is not None
        assert found.target.describe() == "aggregate-5: over 5 x itself in plain-2k + 40"
        return found.measured.median, found.reached

    assert verdict(140.0) == (1.0, True)
    over, reached = verdict(154.0)
    assert over == pytest.approx(1.1)
    assert not reached


def test_every_kind_of_scenario_can_be_reported() -> None:
    values = {Kind.CLOSED: "cpu_us", Kind.DOWNLOAD: "cpu_us_per_mib", Kind.IDLE: "bytes_per_connection"}
    values |= {Kind.HANDSHAKE: "cpu_us", Kind.HALF: "p99_us", Kind.OVERLOAD: "goodput_of_peak"}
    values[Kind.WAITS] = "p50_of_slowest"
    samples = [
        sample(scenario.name, peer, 1, **{values[scenario.kind]: 2.0})
        for scenario in SCENARIOS
        for peer in ("fastgate", "nginx")
    ]
    report = report_of(*samples)
    for text in (to_terminal(report), to_markdown(report), to_svg(report)):
        for scenario in SCENARIOS:
            assert scenario.title in text


def test_json_holds_every_sample_and_the_summary() -> None:
    raw = json.loads(to_json(report_of(*two_rounds())))
    assert len(raw["samples"]) == 4
    nginx = next(entry for entry in raw["summary"] if entry["peer"] == "nginx")
    assert nginx["value"]["median"] == 25.0
    assert nginx["ratio"]["median"] == pytest.approx(0.7)
    assert raw["targets"][0]["reached"] is True


def test_svg_is_well_formed_and_draws_a_bar_for_each_peer_within_the_page() -> None:
    samples = [*two_rounds(), sample("small-get", "proxy.py", 1, cpu_us=9000.0)]
    samples.append(Sample("small-get", "envoy", 1, problems=["did not start"]))
    tree = ElementTree.fromstring(to_svg(report_of(*samples)))
    bars = [bar for bar in tree.iter("{http://www.w3.org/2000/svg}rect") if bar.get("rx")]
    assert len(bars) == 3
    width = float(tree.get("width", "0"))
    assert all(float(bar.get("x", "0")) + float(bar.get("width", "0")) <= width for bar in bars)


# --- command line ---


def test_unknown_names_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--scenario", "no-such"])
    assert ended.value.code == 2
    assert "small-get" in capsys.readouterr().err


def test_zero_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--rounds", "0"])
    assert "at least 1" in capsys.readouterr().err
