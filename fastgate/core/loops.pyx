# Work of the core in a loop without Python in between: a single call from Python costs more than what it
# measures. Used by bench/micro, and by tests that have to meet a process in the middle of it.


def loop_check(limiter: RateLimiter, requests: list[SampleRequest], int64_t now_ns, int64_t step_ns) -> int:
    """Checks each request once, `step_ns` apart; returns how many were refused."""
    cdef RateVerdict verdict
    cdef RateLimiter bound = <RateLimiter?>limiter
    cdef Py_ssize_t refused = 0
    for request in requests:
        refused += bound.check(&(<SampleRequest>request).view, 0, now_ns, &verdict)
        now_ns += step_ns
    return refused


def loop_check_clients(limiter: RateLimiter, uint32_t first, uint32_t count, int64_t now_ns) -> int:
    """Checks a request of each of `count` IPv4 clients from address `first` on; returns the refused."""
    cdef RateVerdict verdict
    cdef RateLimiter bound = <RateLimiter?>limiter
    cdef SampleRequest request = SampleRequest("0.0.0.0")
    cdef Py_ssize_t refused = 0
    cdef uint32_t client, i
    for i in range(count):
        client = first + i
        request.view.client.bytes[12] = <uint8_t>(client >> 24)
        request.view.client.bytes[13] = <uint8_t>(client >> 16)
        request.view.client.bytes[14] = <uint8_t>(client >> 8)
        request.view.client.bytes[15] = <uint8_t>client
        refused += bound.check(&request.view, 0, now_ns, &verdict)
    return refused


def loop_longest(networks: IpSet, requests: list[SampleRequest]) -> int:
    """Looks each request's client up; returns how many were found."""
    cdef IpSet bound = <IpSet?>networks
    cdef Py_ssize_t found = 0
    for request in requests:
        found += bound.longest(&(<SampleRequest>request).view.client) >= 0
    return found


def loop_line(log: AccessLog, exchange: SampleExchange, int times) -> int:
    """Formats the line `times` times over itself; returns its length."""
    cdef AccessLog bound = <AccessLog?>log
    cdef SampleExchange sample = <SampleExchange?>exchange
    cdef size_t start = bound.out.len, length = 0
    cdef int i
    for i in range(times):
        bound._line(&sample.record)
        length = bound.out.len - start
        bound.out.len = start
    bound.lines -= times
    return length


def loop_log(log: AccessLog, exchange: SampleExchange, int times) -> None:
    """Writes the line `times` times, batches and writer thread included."""
    cdef AccessLog bound = <AccessLog?>log
    cdef SampleExchange sample = <SampleExchange?>exchange
    cdef int i
    for i in range(times):
        bound.write(&sample.record)


def loop_record(counters: Counters, exchange: SampleExchange, int times) -> None:
    """Counts the exchange `times` times."""
    cdef Counters bound = <Counters?>counters
    cdef SampleExchange sample = <SampleExchange?>exchange
    cdef int i
    for i in range(times):
        bound.record(&sample.record)


def loop_pick(group: Group, int times, bint keyed, bint busy, int64_t now=1) -> int:
    """Picks `times` times; returns the sum of the positions. busy: each is counted as under way, and the one of 16 picks
    before ends, as with 16 requests at a time."""
    cdef Group bound = <Group?>group
    cdef int64_t total = 0
    cdef uint64_t random = 1
    cdef int[16] held
    cdef int i, found
    for i in range(16):
        held[i] = -1
    for i in range(times):
        random = fg_mix64(random)
        found = bound.pick(keyed, random, NULL, 0, random, now)
        total += found
        if busy and found >= 0:
            (<Seat>bound.standing[found].seat).active += 1
            if held[i & 15] >= 0:
                (<Seat>bound.standing[held[i & 15]].seat).active -= 1
            held[i & 15] = found
    for i in range(16):
        if held[i] >= 0:
            (<Seat>bound.standing[held[i]].seat).active -= 1
    return total


def loop_choose(splitter: Splitter, request: SampleRequest, uint64_t first, uint64_t times, bint keyed=True) -> int:
    """Chooses an arm for each of `times` keys (or random numbers) from `first` on; returns the sum of the arms."""
    cdef Splitter bound = <Splitter?>splitter
    cdef SampleRequest sample = <SampleRequest?>request
    cdef Py_ssize_t total = 0
    cdef uint64_t i
    for i in range(times):
        total += bound.choose(&sample.view, keyed, first + i, (first + i) << 32)
    return total


def loop_set_weights(splitter: Splitter, uint64_t times) -> None:
    """Gives all arms the weight 1, then 2, and so on to 10,000 and anew, `times` times."""
    cdef Splitter bound = <Splitter?>splitter
    cdef uint64_t i
    cdef int arm
    for i in range(times):
        if not bound.records.begin(True):
            raise TimeoutError
        for arm in range(bound.count):
            bound.halves[arm] = 2 + <uint32_t>(i % SPLIT_MAX_WEIGHT)
        bound.records.publish(bound.halves)


def loop_observe(watch: RollbackWatch, int arm, int times, int64_t now_ns, int64_t step_ns) -> None:
    """Counts `times` requests, `step_ns` apart; every eighth failed."""
    cdef RollbackWatch bound = <RollbackWatch?>watch
    cdef int i
    for i in range(times):
        bound.observe(arm, i & 7 == 0, 300000 + i, now_ns)
        now_ns += step_ns


def measure_routing(list heads, int rounds, RouteTable table=None):
    """Read and match each of `heads`, (target, host) as they stand in the request, `rounds` times as GET.

    table: None reads the targets only. Returns the number of requests that found a route (or were well-formed).
    """
    cdef RequestView view
    cdef Target result
    cdef Out scratch = Out(NULL, 0, 0, False)
    cdef Span* spans = <Span*>_table_array(2 * len(heads), sizeof(Span))
    cdef int i, k, count = len(heads)
    cdef int64_t good = 0
    memset(&view, 0, sizeof(view))
    view.method = span_of(b"GET", 3)
    view.method_id = METHOD_GET
    try:
        for i, (target, host) in enumerate(heads):
            spans[2 * i] = _kept_span(target)
            spans[2 * i + 1] = _kept_span(host)
        for k in range(rounds):
            for i in range(count):
                scratch.len = 0
                if normalise_target(METHOD_GET, spans[2 * i], spans[2 * i + 1], &result, &scratch) != R_NONE:
                    continue
                if table is not None:
                    view.host = result.host
                    view.path = result.path
                    view.query = result.query
                    if table.match(&view) < 0:
                        continue
                good += 1
        return good
    finally:
        free(spans)
        out_free(&scratch)


def loop_report(
    UpstreamHealth health not None, tuple seats not None, int outcome, int64_t now_ns, int times
) -> None:
    """Asks both breakers and reports an Outcome, `times` times, over the seats in turn."""
    cdef int i, count = len(seats)
    for i in range(times):
        if health.admits(now_ns) and health.admits_seat(<Seat?>seats[i % count], now_ns):
            health.report_attempt(<Seat>seats[i % count], seats, outcome, now_ns)
def loop_random(source: RandomSource, int times) -> int:
    """Draws `times` numbers; returns their sum modulo 2^64."""
    cdef RandomSource bound = <RandomSource?>source
    cdef uint64_t total = 0
    cdef int i
    for i in range(times):
        total += random64(&bound.state)
    return total


def loop_load(load: UpstreamLoad, int times) -> int:
    """Counts a request and takes it off again; returns how many were let in."""
    cdef UpstreamLoad bound = <UpstreamLoad?>load
    cdef int64_t entered = 0
    cdef int i
    for i in range(times):
        entered += bound.enter_request()
        bound.leave_request()
    return entered


def loop_load_race(load: UpstreamLoad, witness: SharedTable, int times) -> int:
    """Lets requests in and out, as other processes do at the same time; returns the most that were inside at once, of all
    who share `witness`."""
    cdef UpstreamLoad bound = <UpstreamLoad?>load
    cdef SharedRecord held = (<SharedTable?>witness).hold(("inside",))
    cdef LoadState* inside = <LoadState*>held.at
    cdef uint64_t most = 0
    cdef int i
    for i in range(times):
        if bound.enter_request():
            most = max(most, fg_add64(&inside.counts[0], 1))
            fg_add64(&inside.counts[0], -1)
            bound.leave_request()
    return most


def loop_retry(policy: RetryPolicy, load: UpstreamLoad, request: SampleRequest, int status, int times) -> int:
    """Decides on a retry of an answer with this status, and ends it; returns how many there would be."""
    cdef RetryPolicy bound = <RetryPolicy?>policy
    cdef UpstreamLoad counted = <UpstreamLoad?>load
    cdef SampleRequest sample = <SampleRequest?>request
    cdef int64_t retried = 0
    cdef int i
    for i in range(times):
        if bound.wants(R_NONE, status) and bound.allows(&sample.view, False) and counted.take_retry(bound):
            retried += 1
            counted.give_retry()
    return retried


def loop_hedge(policy: HedgePolicy, int64_t now, int64_t step_ns, int times) -> int:
    """Takes a sample and asks for a delay, `step_ns` apart; returns the last delay."""
    cdef HedgePolicy bound = <HedgePolicy?>policy
    cdef int64_t delay = -1
    cdef int i
    for i in range(times):
        now += step_ns
        bound.latency.observe(1000000 + (now & 0xFFFFF), now)
        delay = bound.delay(now)
    return delay


def loop_admission(admission: Admission, int64_t now, int64_t step_ns, int times) -> int:
    """A request enters and leaves, `step_ns` later; returns how many did."""
    cdef Admission bound = <Admission?>admission
    cdef int64_t entered = 0
    cdef int i
    for i in range(times):
        entered += bound.enter(PRIORITY_NORMAL, now)
        now += step_ns
        bound.leave(step_ns, True, now)
    return entered


def loop_queue(admission: Admission, list who, int64_t now) -> int:
    """Each of `who` waits and is taken out again; returns how many."""
    cdef Admission bound = <Admission?>admission
    cdef int64_t withdrawn = 0
    cdef object each
    for each in who:
        bound.offer(each, PRIORITY_NORMAL, now)
        withdrawn += bound.withdraw(each)
    return withdrawn


def loop_fault(rule: FaultRule, request: SampleRequest, source: RandomSource, int times) -> int:
    """Decides on faults; returns the number of aborts."""
    cdef FaultRule bound = <FaultRule?>rule
    cdef SampleRequest sample = <SampleRequest?>request
    cdef RandomSource random = <RandomSource?>source
    cdef uint64_t bits
    cdef int64_t aborts = 0
    cdef int i
    for i in range(times):
        bits = random64(&random.state)
        bound.delay(&sample.view, bits)
        aborts += bound.abort(&sample.view, bits) != 0
    return aborts


def loop_count(counters: Counters, exchange: SampleExchange, count: int) -> None:
    """Counts the exchange so often."""
    cdef Counters bound = <Counters?>counters
    cdef SampleExchange sample = <SampleExchange?>exchange
    cdef int64_t i
    for i in range(count):
        bound.record(&sample.record)
