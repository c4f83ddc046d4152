# The configuration in force, compiled: what an exchange reads while it runs. Built once, never changed: a reload
# builds the next one beside it. An exchange holds its Route and Listener, and so the snapshot that it began with.

cdef enum RouteAction:
    ACTION_UPSTREAM
    ACTION_REDIRECT
    ACTION_RESPOND

cdef enum HostMode:
    HOST_CLIENT             # as the client sent it
    HOST_ENDPOINT           # the endpoint's address
    HOST_LITERAL

cdef enum HalfClose:
    HALF_CLOSE_ABANDON
    HALF_CLOSE_SERVE

cdef enum RequestIdRule:
    REQUEST_ID_KEEP_TRUSTED
    REQUEST_ID_KEEP
    REQUEST_ID_NEW

cdef class NativeFilter:
    # A filter of the compiled core: rate limit, address list. R_NONE lets the request pass; another Reason answers it.
    # What the answer (or the passed response) shall carry goes into `x.extra` as complete field lines.
    cdef readonly str name
    cdef int check(self, Exchange x) except -1

@cython.final
cdef class Route:
    cdef inline void expect(self) noexcept:
        # With thousands of routes this one is in no cache: its lines are asked for together, not one by one.
        prefetch(<char*><void*>self + 64)
        prefetch(<char*><void*>self + 128)
        prefetch(<char*><void*>self + 192)
        prefetch(<char*><void*>self.name_bytes)
        prefetch(<char*><void*>self.name_bytes + 32)

    # -- who
    cdef readonly int index
    cdef readonly str name
    cdef bytes name_bytes
    # -- what happens
    cdef int action                     # RouteAction
    cdef Upstream upstream              # ACTION_UPSTREAM
    cdef Redirector redirect            # ACTION_REDIRECT
    cdef int respond_status             # ACTION_RESPOND
    cdef bytes respond_lines            # its field lines, Content-Type included
    cdef bytes respond_body
    # -- on the way there and back
    cdef tuple filters                  # of NativeFilter
    cdef PathRewrite rewrite            # None: the path goes as it came
    cdef bytes rewrite_host             # None: as the upstream says
    cdef HeaderRules request_rules      # None: none
    cdef HeaderRules response_rules
    cdef tuple upgrades                 # lower-case protocol names that may be switched to
    cdef bint keep_encoded_slash
    # -- bounds; -1: none. body_limit -2: the listener's
    cdef int64_t body_limit
    cdef int64_t total_ns
    cdef int64_t tunnel_idle_ns
    cdef int64_t event_idle_ns

@cython.final
cdef class Upstream:
    # -- who
    cdef readonly int index
    cdef readonly str name
    cdef bytes name_bytes
    # -- where
    cdef list endpoints                 # of Endpoint
    cdef Group group                    # of a seat for each of them
    cdef uint64_t draws
    cdef SharedTable states
    cdef tuple weights
    # -- bounds
    cdef int64_t connect_ns
    cdef int64_t head_ns
    cdef int64_t idle_ns
    cdef HeadLimits head_limits
    cdef int64_t body_limit
    # -- what it is told
    cdef int host_mode                  # HostMode
    cdef bytes host_literal

@cython.final
cdef class Listener:
    # -- who
    cdef readonly str name
    cdef bytes name_bytes
    cdef RouteTable table
    cdef tuple routes                   # of Route, by the index that the table gives
    # -- bounds
    cdef HeadLimits head_limits
    cdef int64_t body_limit
    cdef int64_t head_ns
    cdef int64_t body_idle_ns
    cdef int64_t keep_alive_ns
    cdef int64_t write_idle_ns
    cdef int64_t body_min_rate          # bytes a second
    # -- whom it believes, and what it tells the upstream
    cdef IpSet trusted                  # None: nobody
    cdef bint proxy_protocol
    cdef bint send_x_forwarded
    cdef bint send_forwarded
    cdef int request_id                 # RequestIdRule
    cdef int half_close                 # HalfClose
