# What is known of an exchange when it has ended: for the log, the counters, and what is kept.

cdef inline int fill_record(Exchange x, ExchangeRecord* record, Span detail, int64_t now) except -1:
    memset(record, 0, sizeof(ExchangeRecord))
    if x.client.tls is not None and x.client.tls.version is not None:
        record.tls = bytes_span(x.client.tls.version)
        record.tls_cipher = bytes_span(x.client.tls.cipher)
        if x.client.tls.sni is not None:
            record.sni = bytes_span(x.client.tls.sni)
    record.request_id = span_of(x.request_id, x.request_id_length)
    record.listener = bytes_span(x.listener.name_bytes)
    record.route_index = -1
    record.upstream_index = -1
    if x.route is not None:
        record.route = bytes_span(x.route.name_bytes)
        record.route_index = x.route.slot
        if x.upstream is not None:
            record.upstream = bytes_span(x.upstream.name_bytes)
            record.upstream_index = x.upstream.slot
    if x.endpoint is not None:
        record.endpoint = bytes_span(x.endpoint.address_bytes)
    record.method = x.view.method
    record.method_id = x.view.method_id
    record.target = x.raw_target
    record.host = x.view.host
    record.user_agent = x.facts.user_agent
    record.consumer = x.view.consumer
    if x.traced & TRACED_SPANS:
        put_hex64(put_hex64(x.trace_id, x.trace.high), x.trace.low)
        record.trace_id = span_of(x.trace_id, sizeof(x.trace_id))
    record.http_minor = x.facts.http_minor
    record.client = x.view.client
    record.client_port = x.client_port
    record.fields = x.view.fields
    record.field_count = x.view.field_count
    record.status = x.status
    record.reason = x.reason
    record.detail = detail
    record.attempts = x.attempts
    record.bytes_in = x.bytes_in
    record.bytes_out = x.bytes_out
    record.start_unix_ns = x.start_ns + x.worker.wall_offset
    record.queue_ns = x.queue_ns
    record.connect_ns = x.connect_ns
    record.upstream_head_ns = x.upstream_head_ns
    record.total_ns = now - x.start_ns
    return 0
