# One request and its response through the gateway. It knows no wire: HTTP/1 and (later) HTTP/2 are adapters on both
# sides of it, which it sees as ClientSide and EndpointSide.

cdef struct ResponseHead:
    # A response head on its way to a client; borrowed for the length of the call.
    int status
    Span phrase
    Field* fields           # those with `drop` stay behind
    int field_count
    Span lines              # complete field lines beside them (gateway's own answers)
    int body                # BodyKind of what follows
    int64_t content_length  # -1: unknown. Kept for HEAD and 304, where no body follows
    bint has_date

cdef class ClientSide(Timed):
    # What an exchange needs of the wire that its request came by.
    cdef bint secure                # it is encrypted
    cdef TlsLayer tls               # by what; None where it is not
    # Body bytes are borrowed for the length of the call; each returns a `Sent`.
    cdef int send_head(self, Exchange x, ResponseHead* head, const char* body, size_t length, bint end) except -1
    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1
    cdef int send_interim(self, Exchange x, ResponseHead* head) except -1
    cdef int pause_request(self) except -1
    cdef int resume_request(self) except -1
    # The answer can't be completed: the client must see that it is cut short.
    cdef int cut(self, Exchange x) except -1
    # The exchange is over and recorded; the wire may go on to its next request.
    cdef int exchange_done(self, Exchange x, int64_t now) except -1
    cdef int start_tunnel(self, Exchange x, EndpointSide peer) except -1
    # No further request is taken from this wire: what follows this one can't be trusted.
    cdef int no_more(self) except -1
    # Who is at the other end of the wire (not whom X-Forwarded-For names).
    cdef const Address* peer_address(self) noexcept

cdef class EndpointSide(Timed):
    # What an exchange needs of the wire that its attempt goes by.
    cdef int send_request(self, Exchange x, const char* body, size_t length, bint end, int64_t now) except -1
    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1
    cdef int pause_response(self) except -1
    cdef int resume_response(self) except -1
    # The exchange wants no more of it.
    cdef int abandon(self) except -1

cdef enum ExchangePhase:
    # Each exchange goes down this list, and may leave it at any point for X_DONE. A retry or a fallback takes it back
    # up to X_QUEUED or X_BACKOFF; from X_ANSWERING on there is no way back.
    X_NEW                   # its head is being read
    X_PLUGINS               # a plugin's on_request is under way
    X_DELAYED               # by fault injection
    X_QUEUED                # for a place in the upstream's concurrency limit
    X_UNRESOLVED            # until the upstream's endpoints are known
    X_BACKOFF               # before a retry
    X_WAITING               # for a connection to the endpoint
    X_SENT                  # the request's head is on its way; no response head yet
    X_RESPONDING            # an answer is there, and plugins look at it before the client does
    X_ANSWERING             # a response head went to the client
    X_TUNNEL                # both sides speak something else now
    X_DONE

cdef enum:
    REPLAY_LIMIT = 65536    # body bytes kept for the one replay that the keep-alive race may need
    MAX_INTERIM = 16        # 1xx responses for one request
    MAX_TRIES = 10          # of one exchange; retry.attempts is at most that

cdef enum ExchangeKind:
    KIND_CLIENT             # somebody outside asked
    KIND_HEDGE              # a second request for an answer that is late
    KIND_MIRROR             # a copy whose answer nobody wants
    KIND_SUBREQUEST         # the gateway asks for itself
    KIND_PART               # a part of an aggregation

cdef enum Holds:
    # What an exchange has taken from its upstream and must give back.
    HOLDS_REQUEST = 1       # counted by `load`
    HOLDS_SLOT = 2          # a place in `admission`
    HOLDS_RETRY = 4         # a part of the retry budget
    HOLDS_PENDING = 8       # counted as waiting for a connection

@cython.final
cdef class Exchange(Timed):
    # -- the two sides, and where they belong
    cdef Worker worker
    cdef ClientSide client
    cdef EndpointSide attempt           # None while there is none
    cdef Listener listener
    cdef Route route                    # None until matched
    cdef int phase                      # ExchangePhase
    cdef int kind                       # ExchangeKind
    cdef uint64_t turn                  # goes up each time that this object is given to another request
    # -- what plugins do with it; None: its route has none. What they have changed is kept alive here
    cdef PluginRun run
    cdef bytes changed_head
    cdef bytes changed_method
    cdef bytes changed_path
    cdef bytes changed_query
    cdef bint path_set                  # by a plugin: the route's rewrite has no say any more
    cdef bytes consumer_name            # None: nobody
    cdef str consumer_plan
    # -- where it goes; see attempts.pyx
    cdef Upstream upstream              # None until chosen
    cdef Endpoint endpoint              # of the last try
    cdef bint pinned                    # to `endpoint`: no other is chosen
    cdef bint seated                    # counted among the endpoint's active requests
    cdef int holds                      # Holds
    cdef int arm                        # of the route's split; -1: none
    cdef RetryPolicy retry              # None: no retries
    cdef int tries                      # choices of an endpoint so far
    cdef int[MAX_TRIES] tried           # their seats
    cdef int retries                    # of `retry`; the replay of the keep-alive race is none
    cdef bint delivered                 # a try that has failed may have reached its endpoint
    cdef bint fell_back
    cdef bint stick                     # the answer shall carry the sticky cookie
    cdef bint mirrored                  # a copy is to be sent when the body is whole
    cdef int fault_status               # what fault injection answers when its delay is over; 0: nothing
    cdef Exchange hedge                 # the second request under way for this one
    cdef int64_t phase_deadline         # when the present phase is over; 0: it has no deadline
    cdef int64_t slot_ns                # when it got its place in `admission`
    # -- a failure that is kept back while the hedge may still answer; R_NONE: none
    cdef int held_reason
    cdef str held_detail
    # -- the request's head; every Span below points into `head`, `scratch` or static memory
    cdef bytes head
    cdef RequestView view
    cdef HeadFacts facts
    cdef Target target
    cdef Span raw_target                # as received, for the log
    cdef Field* fields
    cdef int field_room
    cdef Out scratch                    # normal form of path and host, where it differs
    cdef char[72] request_id
    cdef int request_id_length
    cdef uint16_t client_port
    cdef bint client_trusted            # its X-Forwarded-* are believed
    # -- the request's body
    cdef bint request_done              # all of it is here
    cdef bint unsent_done               # `unsent` holds the end as well
    cdef bytes unsent                   # body bytes that wait for a connection; None: none
    cdef bint replayable                # the method may be sent again
    cdef bytes replay                   # body bytes sent so far, as long as somebody may need them; None: given up.
    cdef Out replay_more                # Those behind them; `kept` joins the two
    cdef int64_t replay_limit
    cdef Out request_trailers           # field lines, CRLF each
    # -- the response
    cdef Out extra                      # field lines that filters add to whatever answer goes out
    cdef Out response_trailers
    cdef int status
    cdef int interim                    # 1xx so far
    cdef int64_t total_deadline         # 0: none
    cdef int64_t body_limit             # -1: none
    cdef bint upgrading                 # Upgrade was asked for and is allowed
    cdef bint raced                     # the one replay was used
    # -- its trace; see trails.pyx
    cdef int traced                     # Traced; 0: as good as none
    cdef TraceContext trace
    cdef uint64_t span                  # of this exchange, or of the one that it is for
    cdef uint64_t attempt_span          # of the last try; 0: it has none
    cdef char[32] trace_id              # in hex; scratch of the record
    cdef Out notes                      # of its steps
    cdef int notes_lost                 # steps that found no room there
    # -- the record
    cdef int reason
    cdef str detail
    cdef tuple own_problem              # status and further members of the problem that tells `reason`; None: the usual
    cdef int attempts
    cdef int64_t bytes_in
    cdef int64_t bytes_out
    cdef int64_t start_ns
    cdef int64_t wait_ns                # when it began to wait for a connection
    cdef int64_t sent_ns
    cdef int64_t queue_ns
    cdef int64_t connect_ns
    cdef int64_t upstream_head_ns

    # -- from the client side
    cdef int begin(self, const char* body, size_t length, bint end) except -1
    cdef int request_body(self, const char* body, size_t length, bint end) except -1
    cdef int client_gone(self, int reason, str detail) except -1
    cdef int client_drained(self) except -1
    cdef int tunnel_bytes(self, const char* data, size_t length) except -1      # a `Sent`
    cdef int tunnel_end(self, bint from_client) except -1
    cdef int make_room(self, int fields) except -1
    cdef int refuse(self, int reason, str detail) except -1
    # -- from the endpoint side
    cdef int connected(self, EndpointSide attempt, bint fresh, int64_t now) except -1
    cdef int response(self, ResponseHead* head, const char* body, size_t length, bint end, int64_t now) except -1
    cdef int interim_response(self, ResponseHead* head) except -1
    cdef int switched(self, ResponseHead* head, const char* rest, size_t length) except -1
    cdef int attempt_failed(self, int reason, str detail, bint reused) except -1
    cdef int attempt_drained(self) except -1
    # -- from the upstream and its queue, and from attempts.pyx
    cdef int send(self, const char* body, size_t length, bint end, bint fresh, int64_t now) except -1
    cdef int send_stashed(self, bint fresh, int64_t now) except -1
    cdef int stash(self, int phase, const char* body, size_t length, bint end) except -1
    cdef int wait_until(self, int64_t deadline) except -1       # of this phase; 0: none
    cdef int fail(self, int reason, str detail) except -1       # for good
    cdef int rise(self) except -1
    cdef int begin_answer(self, int status) except -1           # no way back from here
    # An answer's head and pieces on their way to the client, past the plugins; each gives a `Sent`
    cdef int pass_head(self, ResponseHead* head, const char* body, size_t length, bint end) except -1
    cdef int pass_body(self, const char* body, size_t length, bint end) except -1
    cdef int answer_ended(self, int64_t now) except -1          # the endpoint has no more to say
    # -- from its plugins: every filter has let it pass
    cdef int take_action(self, const char* body, size_t length, bint end) except -1
    # -- within
    cdef int _filter(self) except -1
    cdef bytes _challenge(self)         # the answer to a directory; None: it is not one that asks
    cdef int _dispatched(self, int64_t now) except -1
    cdef int _rewind(self) except -1
    cdef int _keep_for_replay(self, const char* body, size_t length) except -1
    cdef bytes kept(self)               # `replay`, whole
    cdef Span chosen_upgrade(self) noexcept
    cdef int _answer_fixed(self) except -1
    cdef int _pick(self, int64_t now) except -1
    cdef int _head_arrived(self, ResponseHead* head, bint end, int64_t now) except -1
    cdef int _finish(self, int64_t now) except -1
    cdef int _drop_attempt(self) except -1
    cdef void reset(self) noexcept
