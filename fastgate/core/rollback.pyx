# Theory of operation. Every worker counts its exchanges into windows that all share; one worker judges them once a
# second. An arm with a rule (a canary) is compared with its baseline over the same time span. It is rolled back when
# all of this holds:
#
# 1. Both have `min_samples` requests in the window. Without a baseline to compare with there is no verdict, however bad
#    the arm looks: what fails may be what both depend on.
# 2. What was measured is worse by more than the margin: its error percent is above the baseline's + error_percent, or
#    its p99 is above the baseline's x p99_factor. A p99 is known as a bucket only, so the lower bound of the arm's is
#    held against the upper bound of the baseline's: true for any values in these buckets.
# 3. Chance alone hardly ever makes it so. With the failures of both arms given, and no difference between the arms,
#    the number that falls to the arm is hypergeometric; the chance of that many or more (Fisher's exact test,
#    one-sided; Agresti, Categorical Data Analysis, 3.5) is to be at most CHANCE. For the p99 what is counted is the
#    requests at or above baseline p99 x factor. It is exact also for the few failures of a small canary, where the
#    usual z >= 2.6 of two proportions is not; and stricter, since whoever looks once a second finds a 1-in-200 event
#    within minutes (Johari et al., "Peeking at A/B Tests", KDD 2017).

from typing import NamedTuple

from libc.math cimport exp, lgamma
from libc.stdlib cimport calloc

cdef double CHANCE = 1e-6       # in one look; a day has 86,400


class RollbackVerdict(NamedTuple):
    """Why an arm was rolled back.

    rule: "error-percent" (margin: points above the baseline) or "p99" (margin: the factor). Times in milliseconds and
    percents as they were in the window; a p99 is the middle of its bucket, within 12.5 %. chance: how probable so large
    a difference is between two arms that are alike.
    """

    route: str
    arm: str
    baseline: str
    rule: str
    margin: float
    chance: float
    window_s: float
    samples: int
    error_percent: float
    p99_ms: float
    baseline_samples: int
    baseline_error_percent: float
    baseline_p99_ms: float


cdef double _log_choose(double n, double k) noexcept nogil:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


cdef double _chance(double hits, double samples, double other_hits, double other_samples) noexcept nogil:
    # That `hits` or more of all hits fall to these samples, if each sample is as likely to be one.
    cdef double all_hits = hits + other_hits
    cdef double term, total, k = hits
    if hits * other_samples <= other_hits * samples:
        return 1
    term = exp(
        _log_choose(samples, hits) + _log_choose(other_samples, other_hits)
        - _log_choose(samples + other_samples, all_hits)
    )
    total = term
    # Above the mean each term is smaller than the last.
    while k < samples and k < all_hits and term > total * 1e-12:
        term *= (all_hits - k) * (samples - k) / ((k + 1) * (other_samples - all_hits + k + 1))
        total += term
        k += 1
    return min(total, 1.0)


def chance_of(hits: int, samples: int, other_hits: int, other_samples: int) -> float:
    """Fisher's exact test, one-sided: the chance that `hits` of `samples` or more come about, given all hits, if both
    groups are alike. 1.0 if the first group has no higher share than the other."""
    return _chance(hits, samples, other_hits, other_samples)


cdef double _percent(uint64_t failures, uint64_t samples) noexcept nogil:
    return 100.0 * <double>failures / <double>samples if samples else 0.0


cdef void judge(
    const RollbackCheck* check, const WindowSum* arm, const WindowSum* baseline, RollbackFacts* facts
) noexcept nogil:
    cdef double bound
    cdef uint64_t slow = 0, baseline_slow = 0
    cdef int i
    facts.rule = RULE_NONE
    facts.samples[0] = arm.samples
    facts.samples[1] = baseline.samples
    facts.failures[0] = arm.failures
    facts.failures[1] = baseline.failures
    facts.p99[0] = window_p99(arm)
    facts.p99[1] = window_p99(baseline)
    if arm.samples < check.min_samples or baseline.samples < check.min_samples:
        return
    if check.error_points > 0 and (
        _percent(arm.failures, arm.samples) > _percent(baseline.failures, baseline.samples) + check.error_points
    ):
        facts.margin = check.error_points
        facts.chance = _chance(arm.failures, arm.samples, baseline.failures, baseline.samples)
        if facts.chance <= CHANCE:
            facts.rule = RULE_ERRORS
            return
    bound = bucket_from(facts.p99[1] + 1) * check.p99_factor
    if check.p99_factor > 0 and bucket_from(facts.p99[0]) >= bound:
        for i in range(HISTOGRAM_BUCKETS):
            if bucket_from(i) >= bound:
                slow += arm.latency[i]
                baseline_slow += baseline.latency[i]
        facts.margin = check.p99_factor
        facts.chance = _chance(slow, arm.samples, baseline_slow, baseline.samples)
        if facts.chance <= CHANCE:
            facts.rule = RULE_P99


cdef class RollbackWatch:
    """Watches the arms that have a rollback rule, and their baselines.

    targets: config SplitTargets in the order of the records' arms (attributes name, weight, and rollback: None or
    error_percent, p99_factor, min_samples, window in nanoseconds, baseline: a name, "" for the heaviest other arm).
    table: of `rollback_windows`. Raises ValueError for a baseline that is no other arm, and for numbers that make no
    rule.
    """

    def __init__(self, SplitRecords records not None, targets: Sequence[Any], SharedTable table not None) -> None:
        cdef RollbackCheck* check
        cdef int arm, count = 0
        cdef int64_t length_ns
        if self.checks != NULL:
            raise TypeError("a RollbackWatch is built once")
        if table.size < sizeof(ArmWindow):
            raise ValueError("the table holds other records")
        self.records = records
        self.table = table
        self.kept = []
        self.checks = <RollbackCheck*>calloc(<size_t>records.count, sizeof(RollbackCheck))
        self.watched = <WatchedWindow*>calloc(2 * <size_t>records.count, sizeof(WatchedWindow))
        self.first = <int*>calloc(<size_t>records.count + 1, sizeof(int))
        self.halves = <uint32_t*>calloc(<size_t>records.count, sizeof(uint32_t))
        self.facts = <RollbackFacts*>calloc(<size_t>records.count, sizeof(RollbackFacts))
        if not (self.checks and self.watched and self.first and self.halves and self.facts):
            raise MemoryError
        lengths: list[set[int]] = [set() for _ in targets]
        for arm, target in enumerate(targets):
            rule = target.rollback
            if rule is None:
                continue
            if rule.error_percent < 0 or rule.p99_factor < 0:
                raise ValueError("error_percent and p99_factor are 0 (off) or above")
            if rule.min_samples < 1 or rule.window < ROLLBACK_SLICES:
                raise ValueError("min_samples and window are above 0")
            check = &self.checks[self.check_count]
            check.arm = arm
            check.baseline = _baseline(records, targets, arm)
            check.error_points = rule.error_percent
            check.p99_factor = rule.p99_factor
            check.min_samples = rule.min_samples
            length_ns = rule.window
            check.arm_window = self._window(arm, length_ns)
            check.baseline_window = self._window(check.baseline, length_ns)
            lengths[arm].add(rule.window)
            lengths[check.baseline].add(rule.window)
            self.check_count += 1
        for arm in range(records.count):
            self.first[arm] = count
            for length in sorted(lengths[arm]):
                self.watched[count] = self._window(arm, length)
                count += 1
        self.first[records.count] = count

    def __dealloc__(self):
        free(self.checks)
        free(self.watched)
        free(self.first)
        free(self.halves)
        free(self.facts)

    cdef WatchedWindow _window(self, int arm, int64_t length_ns) except *:
        cdef WatchedWindow made
        cdef SharedRecord record = self.table.hold(
            ("rollback", self.records.route, self.records.names[arm], length_ns)
        )
        self.kept.append(record)
        made.slice_ns = length_ns // ROLLBACK_SLICES
        made.window = <ArmWindow*>record.at
        return made

    cdef void observe(self, int arm, bint failed, int64_t latency_ns, int64_t now) noexcept nogil:
        cdef int i
        for i in range(self.first[arm], self.first[arm + 1]):
            window_add(&self.watched[i], failed, latency_ns, now)

    cdef void forget(self, int arm) noexcept nogil:
        cdef int i
        for i in range(self.first[arm], self.first[arm + 1]):
            window_forget(&self.watched[i])

    cdef object _verdict(self, const RollbackCheck* check, const RollbackFacts* facts):
        return RollbackVerdict(
            self.records.route,
            self.records.names[check.arm],
            self.records.names[check.baseline],
            ROLLBACK_RULES[facts.rule],
            facts.margin,
            facts.chance,
            check.arm_window.slice_ns * ROLLBACK_SLICES / 1e9,
            facts.samples[0],
            _percent(facts.failures[0], facts.samples[0]),
            bucket_ms(facts.p99[0]),
            facts.samples[1],
            _percent(facts.failures[1], facts.samples[1]),
            bucket_ms(facts.p99[1]),
        )

    def evaluate(self, int64_t now) -> list[RollbackVerdict]:
        """Judges every rule and rolls back the arms that break one; returns why, for the log.

        To be called about once a second, by one worker; if several do it, one of them rolls an arm back and has the
        verdict. now: monotonic nanoseconds. An arm whose weight an operator changes in this moment is judged next time.
        """
        cdef uint64_t generation
        cdef WindowSum sums
        cdef WindowSum baseline
        cdef int i, arm
        broken: list[int] = []
        if not self.records.read(&generation, self.halves):
            return []
        for i in range(self.check_count):
            arm = self.checks[i].arm
            if self.halves[arm] & HALF_ROLLED_BACK:
                continue
            window_sum(&self.checks[i].arm_window, now, &sums)
            window_sum(&self.checks[i].baseline_window, now, &baseline)
            judge(&self.checks[i], &sums, &baseline, &self.facts[i])
            self.facts[i].at_ns = now
            if self.facts[i].rule != RULE_NONE:
                self.halves[arm] |= HALF_ROLLED_BACK
                broken.append(i)
        if not broken or not self.records.begin(False):
            return []
        if fg_load64(&self.records.state.generation) != generation:
            self.records.abandon()
            return []
        for i in broken:
            self.records.arms[self.checks[i].arm].facts = self.facts[i]
        self.records.publish(self.halves)
        return [self._verdict(&self.checks[<int>i], &self.facts[<int>i]) for i in broken]

    def observe_request(self, str arm, *, bint failed=False, int64_t latency_ns=0, int64_t now=0, int times=1) -> None:
        """`observe`, `times` times, for an arm's name."""
        cdef int i, at = self.records.index(arm)
        for i in range(times):
            self.observe(at, failed, latency_ns, now)

    def status(self, str arm, int64_t now) -> dict[str, Any] | None:
        """What is known of an arm with a rule; None for one without.

        {"baseline", "error_percent", "p99_factor", "min_samples", "window_s": the rule; "now", "baseline_now":
        {"samples", "error_percent", "p99_ms"} in the window; "lacks": "samples" or "baseline-samples" if there can be no verdict;
        "why": the RollbackVerdict as a dict, with "seconds_ago", if it is rolled back, else None}.
        """
        cdef uint64_t generation
        cdef WindowSum sums
        cdef WindowSum baseline
        cdef RollbackFacts facts
        cdef RollbackFacts* latched
        cdef RollbackCheck* check = NULL
        cdef int i, at = self.records.index(arm)
        for i in range(self.check_count):
            if self.checks[i].arm == at:
                check = &self.checks[i]
        if check == NULL:
            return None
        window_sum(&check.arm_window, now, &sums)
        window_sum(&check.baseline_window, now, &baseline)
        judge(check, &sums, &baseline, &facts)
        lacks = ""
        if sums.samples < check.min_samples:
            lacks = "samples"
        elif baseline.samples < check.min_samples:
            lacks = "baseline-samples"
        why = None
        latched = &self.records.arms[at].facts
        if self.records.read(&generation, self.halves) and self.halves[at] & HALF_ROLLED_BACK:
            why = self._verdict(check, latched)._asdict() | {"seconds_ago": (now - latched.at_ns) / 1e9}
        return {
            "baseline": self.records.names[check.baseline],
            "error_percent": check.error_points,
            "p99_factor": check.p99_factor,
            "min_samples": check.min_samples,
            "window_s": check.arm_window.slice_ns * ROLLBACK_SLICES / 1e9,
            "now": _sum_dict(&sums),
            "baseline_now": _sum_dict(&baseline),
            "lacks": lacks,
            "why": why,
        }


cdef int _baseline(SplitRecords records, object targets, int arm) except -1:
    wanted = targets[arm].rollback.baseline
    others = [i for i in range(records.count) if i != arm]
    if not others:
        raise ValueError("a rollback needs another arm to compare with")
    if not wanted:
        return max(others, key=lambda i: targets[i].weight)
    if records.index(wanted) == arm:
        raise ValueError(f"arm {wanted!r} cannot be its own baseline")
    return records.index(wanted)


cdef dict _sum_dict(const WindowSum* total):
    return {
        "samples": total.samples,
        "error_percent": _percent(total.failures, total.samples),
        "p99_ms": bucket_ms(window_p99(total)) if total.samples else None,
    }
