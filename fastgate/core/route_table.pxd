# Which route answers a request. Rules, precedence and examples: docs/routing.md.

cdef enum:
    ROUTE_SEGMENTS = 65             # MAX_ROUTE_SEGMENTS and one, to see that the path is longer

cdef struct RouteRule:
    # What is asked beside host and path.
    int index               # of the route in the file
    bint plain              # nothing is asked
    uint32_t method_mask    # bit Method; only those that have a number
    int method_at           # all methods by name, in RouteTable._methods
    int method_count
    int condition_at        # in RouteTable._conditions
    int condition_count

cdef struct RuleList:
    # Rules of one host and path, in the order of precedence: _rules[at : at + count].
    int at
    int count

cdef struct TreeNode:
    # A node of a template tree or a prefix tree; its literal children are in RouteTable._edges, by (node, segment).
    int32_t rules           # RuleList that ends here, or -1
    int32_t parent          # -1: root
    int32_t capture         # template tree: the child that takes any segment, or -1
    bint literals           # has literal children

cdef struct HostGroup:
    # The routes of one host, one wildcard, or of any host.
    int32_t templates       # root node, or -1
    int32_t prefixes        # root node, or -1
    int32_t regexes         # position in RouteTable._regex_sets, or -1
    int32_t anything        # RuleList of the routes without path condition, or -1
    bint literals           # has whole literal paths

cdef struct RouteSearch:
    # One match under way, on the caller's stack: segments and hashes are made when first asked for.
    RequestView* view
    uint64_t path_hash
    bint path_hashed
    Py_ssize_t next         # where the next segment begins; -1: the path is at its end
    int count
    Span[ROUTE_SEGMENTS] segment
    uint64_t[ROUTE_SEGMENTS] hash

@cython.final
cdef class RouteTable:
    # -- look-up tables, immutable after __init__
    cdef uint64_t _seed
    cdef KeyTable _hosts            # owner 0: exact, 1: wildcard
    cdef KeyTable _paths            # owner: host group
    cdef KeyTable _edges            # owner: node
    cdef uint64_t _wildcard_labels  # bit k: some wildcard has k labels behind the "*"
    cdef int32_t _any_host          # group, or -1
    # -- what they lead to
    cdef HostGroup* _groups
    cdef TreeNode* _nodes
    cdef RuleList* _lists
    cdef RouteRule* _rules
    cdef Condition* _conditions
    cdef Span* _methods
    # -- Python objects: only regular expressions are looked at while matching
    cdef list _regex_sets           # (RegexSet, places in _rules, in its order)
    cdef list _patterns             # RegexSet of each regex condition
    cdef list _kept                 # bytes that the Spans point into
    cdef Out _scratch
    # -- for the tests: slots, nodes and rules looked at since the start
    cdef readonly uint64_t work

    # The winning route's index in file order, or -1 for none. Reads method, path, query, host and fields; sets captures
    # (they point into view.path) and capture_count. Needs the GIL only for regular expressions, which may raise (-2).
    cdef int match(self, RequestView* view) except -2
    cdef int _search_group(self, int32_t number, RouteSearch* search) except -2
    cdef int _search_templates(self, int32_t node, int depth, int captured, RouteSearch* search) except -2
    cdef int _search_prefixes(self, int32_t node, RouteSearch* search) except -2
    cdef int _search_regexes(self, int32_t number, RequestView* view) except -2
    cdef int _first_rule(self, int32_t number, RequestView* view) except -2
    cdef bint _rule_holds(self, const RouteRule* rule, RequestView* view) except -1
    cdef bint _has_segment(self, RouteSearch* search, int depth) noexcept
    cdef int _freeze(self, object builder) except -1
