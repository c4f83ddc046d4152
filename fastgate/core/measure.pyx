# Loops for the micro-benchmarks (bench/micro): a call from Python would cost more than what is measured.


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
