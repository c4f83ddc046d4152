# The one table of reason codes: body, log, metric, Proxy-Status and docs/reasons.md all come from it.

from typing import NamedTuple


class ReasonInfo(NamedTuple):
    """One reason code.

    status: what the client sees (0: decided by the configuration, or nothing is sent any more).
    proxy_error: the error type of RFC 9209 2.3, or "".
    source: "downstream", "upstream" or "gateway"; who has to act.
    retryable: whether the same request may succeed if sent again.
    """

    code: str
    status: int
    proxy_error: str
    source: str
    retryable: bool
    cause: str
    remedy: str


REASONS: tuple[ReasonInfo, ...] = (
    ReasonInfo(
        "none", 0, "", "", False,
        "",
        "",
    ),
    ReasonInfo(
        "request-syntax", 400, "http_request_error", "downstream", False,
        'The request is not well-formed HTTP/1.1 (RFC 9112).',
        "Mend the client; the log line's detail names the rule.",
    ),
    ReasonInfo(
        "bare-line-feed", 400, "http_request_error", "downstream", False,
        "A line of the head ends in LF alone, or holds a bare CR (RFC 9112 2.2).",
        "End lines in CRLF.",
    ),
    ReasonInfo(
        "request-line-syntax", 400, "http_request_error", "downstream", False,
        'The request line is not "method SP target SP HTTP/1.x" (RFC 9112 3).',
        'Mend the client.',
    ),
    ReasonInfo(
        "http-version", 400, "http_request_error", "downstream", False,
        "The request line names an HTTP version other than 1.0 and 1.1.",
        "Speak HTTP/1.1.",
    ),
    ReasonInfo(
        "field-syntax", 400, "http_request_error", "downstream", False,
        "A field line has no colon, white space before it, folds, or holds a forbidden byte (RFC 9112 5).",
        "Mend the client.",
    ),
    ReasonInfo(
        "host-missing", 400, "http_request_error", "downstream", False,
        "An HTTP/1.1 request has no Host (RFC 9112 3.2).",
        "Send Host.",
    ),
    ReasonInfo(
        "host-duplicate", 400, "http_request_error", "downstream", False,
        "Two Host fields: two readers could choose differently (RFC 9112 3.2).",
        "Send one.",
    ),
    ReasonInfo(
        "host-syntax", 400, "http_request_error", "downstream", False,
        "The Host is not a host name or address with an optional port (RFC 9110 7.2).",
        "Mend the client.",
    ),
    ReasonInfo(
        "target-syntax", 400, "http_request_error", "downstream", False,
        "The request target holds bytes that no URI may hold, a fragment, a bad percent escape, or climbs above the root.",
        "Mend the client.",
    ),
    ReasonInfo(
        "encoded-slash", 400, "http_request_error", "downstream", False,
        'The path holds %2F or %5C and the route refuses them.',
        'Set encoded_slashes = "keep" on the route if its service expects them.',
    ),
    ReasonInfo(
        "content-length-syntax", 400, "http_request_error", "downstream", False,
        "Content-Length is not one decimal number, or is repeated (RFC 9112 6.3).",
        "Send one.",
    ),
    ReasonInfo(
        "length-and-encoding", 400, "http_request_error", "downstream", False,
        "Content-Length and Transfer-Encoding together: a smuggling path (RFC 9112 6.1).",
        "Send one of them.",
    ),
    ReasonInfo(
        "transfer-encoding", 501, "http_request_error", "downstream", False,
        'A transfer coding other than exactly "chunked" (RFC 9112 6.1).',
        'Send chunked or Content-Length.',
    ),
    ReasonInfo(
        "encoding-http10", 400, "http_request_error", "downstream", False,
        "Transfer-Encoding on HTTP/1.0, whose framing no one can trust (RFC 9112 6.1).",
        "Send Content-Length.",
    ),
    ReasonInfo(
        "chunk-syntax", 400, "http_request_error", "downstream", False,
        "Chunked framing or a trailer breaks the grammar of RFC 9112 7.1.",
        "Mend the client.",
    ),
    ReasonInfo(
        "upgrade-with-body", 400, "http_request_error", "downstream", False,
        "A request that would upgrade has a body: two readers could see its end in two places.",
        "Send the body first, then upgrade.",
    ),
    ReasonInfo(
        "upgrade-syntax", 400, "http_request_error", "downstream", False,
        "Upgrade is not a list of protocols, or Connection does not name it.",
        "Mend the client.",
    ),
    ReasonInfo(
        "expect-unknown", 417, "http_request_error", "downstream", False,
        "An expectation other than 100-continue (RFC 9110 10.1.1).",
        "Send none, or 100-continue.",
    ),
    ReasonInfo(
        "method-not-implemented", 501, "http_request_denied", "downstream", False,
        "CONNECT and TRACE are not served by this gateway.",
        "Use another method.",
    ),
    ReasonInfo(
        "proxy-header", 400, "http_request_error", "downstream", False,
        "The listener asks for a PROXY protocol header and the connection has none, or a bad one.",
        "Let the load balancer send it, or turn proxy_protocol off.",
    ),
    ReasonInfo(
        "plain-http", 400, "http_request_error", "downstream", False,
        "The request came without TLS to a listener that speaks TLS alone.",
        "Use https:// for this port.",
    ),
    ReasonInfo(
        "misdirected", 421, "http_request_denied", "downstream", False,
        "The request's Host is not the name that its TLS handshake was for, on a listener that asks for client certificates.",
        "Open a connection of its own for each name.",
    ),
    ReasonInfo(
        "parsers-disagree", 400, "http_request_error", "downstream", False,
        "The gateway's framing and the parser's differ: the request could be read in two ways.",
        'Please report it.',
    ),
    ReasonInfo(
        "request-line-too-long", 414, "http_request_error", "downstream", False,
        "The request line is over limits.request_line.",
        "Shorten the URL or raise the limit.",
    ),
    ReasonInfo(
        "header-too-large", 431, "http_request_error", "downstream", False,
        "The head is over limits.header_bytes.",
        "Send fewer or smaller fields, or raise the limit.",
    ),
    ReasonInfo(
        "header-too-many", 431, "http_request_error", "downstream", False,
        "More fields than limits.header_count.",
        "Send fewer fields or raise the limit.",
    ),
    ReasonInfo(
        "body-too-large", 413, "http_request_denied", "downstream", False,
        "The body is over limits.body of the listener or route.",
        "Send less or raise the limit.",
    ),
    ReasonInfo(
        "trailer-too-large", 431, "http_request_error", "downstream", False,
        "The trailer section is over the head's limits.",
        'Send fewer trailers.',
    ),
    ReasonInfo(
        "head-timeout", 408, "http_request_error", "downstream", True,
        "The head did not arrive within timeouts.head.",
        "A slow client or network; raise the deadline if they are yours.",
    ),
    ReasonInfo(
        "body-timeout", 408, "http_request_error", "downstream", True,
        "No byte of the body came for timeouts.body_idle.",
        "A slow client or network; raise the deadline if they are yours.",
    ),
    ReasonInfo(
        "body-too-slow", 408, "http_request_error", "downstream", True,
        "The body came slower than body_min_rate after the grace.",
        "A slow client or network; lower the rate if they are yours.",
    ),
    ReasonInfo(
        "client-gone", 499, "connection_terminated", "downstream", False,
        "The client closed before its answer was complete; nobody saw this status.",
        "Nothing, or look for slow answers.",
    ),
    ReasonInfo(
        "client-not-reading", 499, "connection_write_timeout", "downstream", False,
        "The client took no byte of the answer for timeouts.write_idle.",
        "Nothing, or raise the deadline.",
    ),
    ReasonInfo(
        "no-route", 404, "destination_not_found", "gateway", False,
        "No route matches the request.",
        "fastgate explain METHOD URL tells why.",
    ),
    ReasonInfo(
        "rate-limited", 429, "http_request_denied", "gateway", True,
        "A rate limit's bucket is empty.",
        'Come back after Retry-After seconds, or raise the rate.',
    ),
    ReasonInfo(
        "address-refused", 403, "http_request_denied", "gateway", False,
        "The client's address is blocked, or is not in the allow list.",
        "Change the ip-filter's lists.",
    ),
    ReasonInfo(
        "fixed-response", 0, "", "gateway", False,
        "The route answers itself: respond.",
        "Nothing; it is what the route says.",
    ),
    ReasonInfo(
        "redirected", 0, "", "gateway", False,
        "The route answers itself: redirect.",
        "Nothing; it is what the route says.",
    ),
    ReasonInfo(
        "acme-challenge", 0, "", "gateway", False,
        "An ACME directory asked whether the name is ours, before any route.",
        "Nothing; a certificate is being issued.",
    ),
    ReasonInfo(
        "fallback-response", 0, "", "gateway", False,
        "The upstream failed in a way that the route's fallback names, and the route answers itself: fallback.respond.",
        "Look at the upstream; the log line's detail names the failure.",
    ),
    ReasonInfo(
        "fault-injected", 0, "proxy_internal_response", "gateway", True,
        "The route's fault rule chose this request for its abort status.",
        "Nothing; it is what the route says. Take fault away from the route when the test is over.",
    ),
    ReasonInfo(
        "max-forwards", 200, "proxy_internal_response", "gateway", False,
        "OPTIONS with Max-Forwards: 0 ends here (RFC 9110 7.6.2).",
        "Nothing; the client asked for it.",
    ),
    ReasonInfo(
        "internal-error", 500, "proxy_internal_error", "gateway", False,
        "A defect of the gateway; the error log has its trace.",
        "Please report it.",
    ),
    ReasonInfo(
        "total-timeout", 504, "http_response_timeout", "gateway", True,
        "The exchange did not end within timeouts.total of the route.",
        "Raise the deadline or speed up the service.",
    ),
    ReasonInfo(
        "queue-full", 503, "connection_limit_reached", "gateway", True,
        "All connections to the endpoint are in use and its queue is full.",
        "Raise pool.max_connections or pool.queue, or add endpoints.",
    ),
    ReasonInfo(
        "queue-timeout", 503, "connection_limit_reached", "gateway", True,
        "No connection to the endpoint came free within pool.queue_timeout.",
        "Raise pool.max_connections or pool.queue_timeout, or add endpoints.",
    ),
    ReasonInfo(
        "overloaded", 503, "proxy_internal_response", "gateway", True,
        "The upstream's concurrency limit is reached, and its queue is full or was given to a request of higher priority.",
        "Come back later; raise concurrency.limit or queue, or add endpoints, if the service can take more.",
    ),
    ReasonInfo(
        "overload-timeout", 503, "proxy_internal_response", "gateway", True,
        "The request waited for the upstream's concurrency limit, and its time in the queue was up.",
        "Come back later; raise concurrency.limit or queue_timeout, or add endpoints, if the service can take more.",
    ),
    ReasonInfo(
        "breaker-limit", 503, "connection_limit_reached", "gateway", True,
        "One of the upstream's breaker limits is reached: max_connections, max_pending or max_requests.",
        "Raise it if the service can take more, or add endpoints.",
    ),
    ReasonInfo(
        "breaker-open", 503, "destination_unavailable", "upstream", True,
        "Too many of the upstream's last answers were failures; its breaker lets nothing through for breaker.open_time.",
        "Look into the service's log; trial requests close the breaker once it works again.",
    ),
    ReasonInfo(
        "no-endpoint", 503, "destination_unavailable", "upstream", True,
        "The upstream has no endpoint to send to.",
        "Add endpoints.",
    ),
    ReasonInfo(
        "endpoints-pending", 503, "destination_unavailable", "upstream", True,
        "None of the names of the upstream's endpoints has been resolved yet.",
        "Come back in a moment; if it stays, check the names and the resolver.",
    ),
    ReasonInfo(
        "dns-failure", 503, "dns_error", "upstream", True,
        "The endpoint's name does not resolve.",
        'Check the name and the resolver.',
    ),
    ReasonInfo(
        "connect-refused", 502, "connection_refused", "upstream", True,
        "The endpoint refused the connection.",
        "Is the service up, and on that port?",
    ),
    ReasonInfo(
        "connect-failed", 502, "destination_ip_unroutable", "upstream", True,
        "The connection to the endpoint could not be made; the detail names the system's error.",
        'Check the network and the address.',
    ),
    ReasonInfo(
        "connect-timeout", 504, "connection_timeout", "upstream", True,
        "The endpoint did not accept within timeouts.connect.",
        "Check the network, or whether the service is overloaded.",
    ),
    ReasonInfo(
        "upstream-certificate", 502, "tls_certificate_error", "upstream", True,
        "The endpoint's certificate was not accepted; the detail says why.",
        "Is it for this name, in date, and of an authority that the upstream's `tls` trusts?",
    ),
    ReasonInfo(
        "upstream-handshake", 502, "tls_protocol_error", "upstream", True,
        "TLS with the endpoint could not begin; the detail is what OpenSSL says.",
        "Does the endpoint speak TLS on this port, and one of the versions that the upstream's `tls` allows?",
    ),
    ReasonInfo(
        "upstream-reset", 502, "connection_terminated", "upstream", True,
        'The endpoint closed or reset the connection before a response head.',
        "Look into the service's log.",
    ),
    ReasonInfo(
        "upstream-truncated", 502, "http_response_incomplete", "upstream", False,
        "The endpoint ended in the middle of a response; the client's connection was cut so that it knows.",
        "Look into the service's log.",
    ),
    ReasonInfo(
        "upstream-head-timeout", 504, "http_response_timeout", "upstream", True,
        "No response head within timeouts.head.",
        "A slow service; raise the deadline or look into it.",
    ),
    ReasonInfo(
        "upstream-idle-timeout", 504, "connection_read_timeout", "upstream", False,
        "No byte of the response for timeouts.idle, or the endpoint took no byte of the request for as long.",
        "A stalled service.",
    ),
    ReasonInfo(
        "upstream-syntax", 502, "http_protocol_error", "upstream", False,
        "The response is not well-formed HTTP/1.1.",
        "Mend the service.",
    ),
    ReasonInfo(
        "upstream-framing", 502, "http_protocol_error", "upstream", False,
        "The response's length can be read in two ways (repeated or bad Content-Length, both framings, unknown coding).",
        'Mend the service.',
    ),
    ReasonInfo(
        "upstream-chunk-syntax", 502, "http_response_transfer_coding", "upstream", False,
        "The response's chunked framing breaks RFC 9112 7.1.",
        'Mend the service.',
    ),
    ReasonInfo(
        "upstream-header-too-large", 502, "http_response_header_section_size", "upstream", False,
        "The response head is over the upstream's limits.",
        'Raise limits.header_bytes or header_count of the upstream.',
    ),
    ReasonInfo(
        "upstream-body-too-large", 502, "http_response_body_size", "upstream", False,
        "The response body is over limits.body of the upstream.",
        "Raise it.",
    ),
    ReasonInfo(
        "upstream-too-many-interim", 502, "http_protocol_error", "upstream", False,
        "More 1xx responses than the gateway forwards for one request.",
        "Mend the service.",
    ),
    ReasonInfo(
        "upstream-upgrade", 502, "http_upgrade_failed", "upstream", False,
        "The endpoint switched to a protocol that was not asked for.",
        "Mend the service.",
    ),
    ReasonInfo(
        "drain-cut", 503, "proxy_internal_response", "gateway", True,
        "The exchange was cut at the end of server.drain_timeout.",
        "Raise it if your requests take longer.",
    ),
    ReasonInfo(
        "tunnel-idle", 0, "connection_read_timeout", "gateway", False,
        "An upgraded connection was silent for timeouts.tunnel_idle and was closed.",
        "Send pings, or raise it.",
    ),
    ReasonInfo(
        "authentication-required", 401, "http_request_denied", "downstream", False,
        "The route asks who the caller is, and the request carries no credentials.",
        "Send credentials of one of the kinds that the route takes.",
    ),
    ReasonInfo(
        "authentication-failed", 401, "http_request_denied", "downstream", False,
        "The credentials are wrong, expired or not meant for this service; the log line's detail says which.",
        "Get new credentials.",
    ),
    ReasonInfo(
        "authentication-unavailable", 503, "proxy_internal_response", "gateway", True,
        "Who the caller is can't be found out: the identity provider or its keys can't be reached.",
        "See the log line's detail; mend the provider or the way to it.",
    ),
    ReasonInfo(
        "forward-auth-refused", 0, "http_request_denied", "downstream", False,
        "The service that the gateway asks for permission refused the request.",
        "Ask that service.",
    ),
    ReasonInfo(
        "login-required", 0, "", "downstream", False,
        "The caller is sent to the identity provider to log in.",
        "Nothing.",
    ),
    ReasonInfo(
        "forbidden", 403, "http_request_denied", "downstream", False,
        "The caller is known and not allowed to do this.",
        "Give the consumer the group, scope or claim that the rule asks for.",
    ),
    ReasonInfo(
        "csrf-refused", 403, "http_request_denied", "downstream", False,
        "A request that changes something comes from another site's page, or has no valid CSRF token.",
        "Send the token; allow the origin if it is yours.",
    ),
    ReasonInfo(
        "origin-refused", 403, "http_request_denied", "downstream", False,
        "The page's origin is not among those that may use the route (CORS).",
        "Add it to the plugin's origins.",
    ),
    ReasonInfo(
        "request-invalid", 400, "http_request_error", "downstream", False,
        "The request does not have the form that the route's schema asks for.",
        "Compare it with the schema; the body names the place.",
    ),
    ReasonInfo(
        "maintenance", 503, "proxy_internal_response", "gateway", True,
        "The route is switched to maintenance.",
        "Wait, or switch it back.",
    ),
    ReasonInfo(
        "bot-refused", 403, "http_request_denied", "downstream", False,
        "The client calls itself what the route's bot rules refuse.",
        "Mend the rule if it is none.",
    ),
    ReasonInfo(
        "country-refused", 403, "http_request_denied", "downstream", False,
        "The client's address belongs to a country that the route refuses.",
        "Mend the list, or the database, if that is wrong.",
    ),
    ReasonInfo(
        "quota-exceeded", 429, "http_request_denied", "downstream", True,
        "The caller has used up what it may ask for in this day, month or window.",
        "Wait until it begins anew; RateLimit says when.",
    ),
    ReasonInfo(
        "limit-unavailable", 503, "proxy_internal_response", "gateway", True,
        "A limit could not be asked (Redis is gone), and the configuration refuses then.",
        "Mend Redis, or choose another on_error.",
    ),
    ReasonInfo(
        "plugin-answered", 0, "", "gateway", False,
        "A plugin has answered the request itself.",
        "Nothing: so configured.",
    ),
    ReasonInfo(
        "plugin-refused", 0, "http_request_denied", "downstream", False,
        "A plugin has refused the request with a code of its own, which the body and the log line's detail tell.",
        "See the plugin's documentation.",
    ),
    ReasonInfo(
        "plugin-failed", 500, "proxy_internal_error", "gateway", False,
        "A plugin raised an exception; it is in the gateway's log.",
        "Mend the plugin.",
    ),
    ReasonInfo(
        "plugin-timeout", 500, "proxy_internal_error", "gateway", True,
        "A plugin took longer than its `timeout`.",
        "Raise it, or see what the plugin waits for.",
    ),
    ReasonInfo(
        "plugin-breaker-open", 500, "proxy_internal_error", "gateway", True,
        "A plugin has failed again and again, and is not called for a while.",
        "See the gateway's log for its failures.",
    ),
    ReasonInfo(
        "plugin-body-too-large", 502, "http_response_body_size", "gateway", False,
        "A plugin wants the answer's body whole, and it is longer than the plugin holds.",
        "Do not use the plugin where answers are that long.",
    ),
    ReasonInfo(
        "part-status", 502, "destination_unavailable", "upstream", True,
        "A part of an aggregation was answered with a status that is none of its `success`.",
        "See that service; `statuses` of the part says what the client gets.",
    ),
    ReasonInfo(
        "part-body", 502, "http_response_incomplete", "upstream", True,
        "The body of a part's answer is not what its Content-Type or `decode` says, or has a content coding.",
        "See that service, or the part's `decode`.",
    ),
    ReasonInfo(
        "part-type", 502, "http_protocol_error", "upstream", False,
        "A part's value is not of the kind that its keys or the answer need: a list where an object is expected, say.",
        "Give the part a `group`, or mend `target`, `filter`, `map` or `flatten`; the log line's detail names it.",
    ),
    ReasonInfo(
        "part-too-large", 502, "http_response_body_size", "upstream", False,
        "A part's answer is longer than its `max_body`, or its list longer than `max_items`.",
        "Ask the service for less, or raise the limit.",
    ),
    ReasonInfo(
        "part-value", 502, "http_protocol_error", "gateway", False,
        "A value that a part's request needs is not there, or can't stand where its text has it.",
        "See the part's texts; the log line's detail names the value.",
    ),
    ReasonInfo(
        "part-dependency", 502, "destination_unavailable", "gateway", True,
        "A part was not asked for, since another one that it needs has failed.",
        "See that part, or give it a `default`.",
    ),
    ReasonInfo(
        "part-graphql", 502, "destination_unavailable", "upstream", False,
        "A GraphQL answer has errors, or no data.",
        "See the log line's detail; `partial` takes data beside errors.",
    ),
    ReasonInfo(
        "part-timeout", 504, "http_response_timeout", "upstream", True,
        "A part took longer than its `timeout`, or than what was left of the whole.",
        "See that service, or make the part optional.",
    ),
    ReasonInfo(
        "aggregate-failed", 502, "destination_unavailable", "upstream", True,
        "Parts that the answer needs have failed; `parts` of the body tells which and why.",
        "See the reasons of the parts.",
    ),
    ReasonInfo(
        "aggregate-timeout", 504, "http_response_timeout", "upstream", True,
        "Parts that the answer needs were not there in time; `parts` of the body tells which.",
        "See these services, or make their parts optional.",
    ),
    ReasonInfo(
        "aggregate-collision", 502, "proxy_configuration_error", "gateway", False,
        "Two parts have the same member of the answer, and `on_collision` is \"fail\".",
        "Give them groups, or pick, rename or drop; the log line's detail names the member.",
    ),
    ReasonInfo(
        "aggregate-memory", 502, "http_response_body_size", "gateway", False,
        "The answers of all parts together are longer than the aggregation's `max_memory`.",
        "Ask the services for less, or raise the limit.",
    ),
    ReasonInfo(
        "aggregate-request", 400, "http_request_error", "downstream", False,
        "The request lacks a value that a part of the answer needs, or has one of the wrong kind.",
        "Mend the client; `parts` of the body names the part.",
    ),
    ReasonInfo(
        "aggregate-partial", 0, "", "upstream", True,
        "The answer lacks a part that it can do without; Fastgate-Partial names it.",
        "See the reason of the part.",
    ),
)

if len(REASONS) != R_COUNT:
    raise ImportError("core/reasons.pxd and core/reasons.pyx name different reasons")
