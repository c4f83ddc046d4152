# Which route answers a request.
#
# Theory of operation. Precedence is a nesting, and the search walks it from the outside in; the first rule that holds wins:
#   host      exact name, then the wildcards from the longest, then the routes of any host: a HostGroup each
#   path      whole literal path, then templates (at each segment a literal before a {name}), then regexes, then prefixes from
#             the longest, then routes without path: a RuleList each (regexes: one rule each, in file order)
#   the rest  the rules of a RuleList, sorted when the table is built (methods, headers, query, cookies, file order)
# Each step is a look-up in a hash table. A template tree may have to go back: no node is entered twice for one request, as
# there is one way from the root to it, so the work is bounded by the nodes of that host's tree, whatever the request.

cdef class RouteTable:
    """The routes of one listener, compiled.

    routes: (index, route) pairs, where route has the `name` and `match` of the configuration's Route; indexes ascend.
    Raises ValueError, naming the route, for a match that cannot be compiled.
    """

    def __cinit__(self) -> None:
        self._any_host = -1

    def __init__(self, routes: Iterable[tuple[int, Any]]) -> None:
        if self._rules != NULL:
            raise TypeError("a RouteTable is immutable")
        self._freeze(_TableBuilder(routes))

    def __dealloc__(self) -> None:
        key_table_free(&self._hosts)
        key_table_free(&self._paths)
        key_table_free(&self._edges)
        free(self._groups)
        free(self._nodes)
        free(self._lists)
        free(self._rules)
        free(self._conditions)
        free(self._methods)
        out_free(&self._scratch)

    cdef int _freeze(self, object builder) except -1:
        cdef int i
        self._seed = int.from_bytes(os.urandom(8), "little")
        self._patterns = [RegexSet([pattern]) for pattern in builder.patterns]
        in_order = []                   # numbers of the builder's rules, as they will lie in _rules
        self._regex_sets = builder.regex_sets()
        self._kept = builder.kept
        self._wildcard_labels = builder.wildcard_labels
        self._any_host = builder.hosts.get((2, b""), -1)
        builder.hosts.pop((2, b""), None)
        key_table_build(&self._hosts, self._seed, builder.hosts)
        key_table_build(&self._paths, self._seed, builder.paths)
        key_table_build(&self._edges, self._seed, builder.edges)
        self._groups = <HostGroup*>_table_array(len(builder.groups), sizeof(HostGroup))
        self._nodes = <TreeNode*>_table_array(len(builder.nodes), sizeof(TreeNode))
        self._lists = <RuleList*>_table_array(len(builder.lists), sizeof(RuleList))
        # A rule of several hosts stands in several places: a copy costs less than a step more to each match.
        for number, (patterns, rules) in enumerate(self._regex_sets):
            self._regex_sets[number] = (patterns, tuple(range(len(in_order), len(in_order) + len(rules))))
            in_order += rules
        at = len(in_order)
        for rules in builder.lists:
            in_order += sorted(rules, key=builder.precedence)
        self._rules = <RouteRule*>_table_array(len(in_order), sizeof(RouteRule))
        self._conditions = <Condition*>_table_array(len(builder.conditions), sizeof(Condition))
        self._methods = <Span*>_table_array(len(builder.methods), sizeof(Span))
        for i, group in enumerate(builder.groups):
            self._groups[i] = HostGroup(
                group.templates, group.prefixes, group.regex_set, group.anything, group.literals
            )
        for i, node in enumerate(builder.nodes):
            self._nodes[i] = TreeNode(node.rules, node.parent, node.capture, node.literals)
        for i, rules in enumerate(builder.lists):
            self._lists[i] = RuleList(at, len(rules))
            at += len(rules)
        for i, rule in enumerate(in_order):
            row = builder.rules[rule]
            self._rules[i] = RouteRule(
                row.index, not row.method_count and not row.condition_count, row.method_mask,
                row.method_at, row.method_count, row.condition_at, row.condition_count,
            )
        for i, (place, kind, pattern, name, value) in enumerate(builder.conditions):
            self._conditions[i] = Condition(place, kind, pattern, _kept_span(name), _kept_span(value))
        for i, name in enumerate(builder.methods):
            self._methods[i] = _kept_span(name)
        return 0

    cdef int match(self, RequestView* view) except -2:
        cdef RouteSearch search
        cdef Span rest
        cdef uint64_t hashed
        cdef int32_t group
        cdef int found, labels
        cdef Py_ssize_t i
        search.view = view
        search.path_hashed = False
        search.next = 1
        search.count = 0
        view.capture_count = 0
        if view.host.len and self._hosts.slots != NULL:
            hashed = bytes_hash(self._seed, view.host)
            group = key_table_get(&self._hosts, hashed, 0, view.host, &self.work)
            if group >= 0:
                found = self._search_group(group, &search)
                if found != -1:
                    return found
            if self._wildcard_labels:
                labels = 0
                for i in range(view.host.len):
                    labels += view.host.ptr[i] == 46
                for i in range(view.host.len):
                    if view.host.ptr[i] != 46:
                        continue
                    # `labels` is now the number of labels behind this dot.
                    if labels < 64 and self._wildcard_labels >> labels & 1:
                        rest = span_of(view.host.ptr + i + 1, view.host.len - i - 1)
                        hashed = bytes_hash(self._seed, rest)
                        group = key_table_get(&self._hosts, hashed, 1, rest, &self.work)
                        if group >= 0:
                            found = self._search_group(group, &search)
                            if found != -1:
                                return found
                    labels -= 1
        if self._any_host >= 0:
            return self._search_group(self._any_host, &search)
        return -1

    cdef int _search_group(self, int32_t number, RouteSearch* search) except -2:
        cdef const HostGroup* group = &self._groups[number]
        cdef RequestView* view = search.view
        cdef int32_t rules
        cdef int found
        # "*" (OPTIONS) is no path: only routes without path condition can match it.
        if view.path.len and view.path.ptr[0] == 47:
            if group.literals:
                if not search.path_hashed:
                    search.path_hash = bytes_hash(self._seed, view.path)
                    search.path_hashed = True
                rules = key_table_get(&self._paths, search.path_hash, number, view.path, &self.work)
                if rules >= 0:
                    found = self._first_rule(rules, view)
                    if found != -1:
                        return found
            if group.templates >= 0:
                found = self._search_templates(group.templates, 0, 0, search)
                if found != -1:
                    return found
                view.capture_count = 0
            if group.regexes >= 0:
                found = self._search_regexes(group.regexes, view)
                if found != -1:
                    return found
            if group.prefixes >= 0:
                found = self._search_prefixes(group.prefixes, search)
                if found != -1:
                    return found
        if group.anything >= 0:
            return self._first_rule(group.anything, view)
        return -1

    cdef bint _has_segment(self, RouteSearch* search, int depth) noexcept:
        # Whether the path has a segment `depth` (from 0); splits and hashes as far as needed. depth < ROUTE_SEGMENTS.
        cdef const char* path = search.view.path.ptr
        cdef Py_ssize_t n = search.view.path.len, i
        while search.count <= depth:
            if search.next < 0:
                return False
            i = search.next
            while i < n and path[i] != 47:
                i += 1
            search.segment[search.count] = span_of(path + search.next, i - search.next)
            search.hash[search.count] = bytes_hash(self._seed, search.segment[search.count])
            search.count += 1
            search.next = i + 1 if i < n else -1
        return True

    cdef int _search_templates(self, int32_t node, int depth, int captured, RouteSearch* search) except -2:
        # Recursion is as deep as the longest template, at most MAX_ROUTE_SEGMENTS.
        cdef const TreeNode* here = &self._nodes[node]
        cdef int32_t child
        cdef int found
        self.work += 1
        if not self._has_segment(search, depth):
            if here.rules < 0:
                return -1
            search.view.capture_count = captured
            return self._first_rule(here.rules, search.view)
        if here.literals:
            child = key_table_get(&self._edges, search.hash[depth], node, search.segment[depth], &self.work)
            if child >= 0:
                found = self._search_templates(child, depth + 1, captured, search)
                if found != -1:
                    return found
        if here.capture >= 0 and search.segment[depth].len:
            search.view.captures[captured] = search.segment[depth]
            return self._search_templates(here.capture, depth + 1, captured + 1, search)
        return -1

    cdef int _search_prefixes(self, int32_t node, RouteSearch* search) except -2:
        cdef int depth = 0, found
        cdef int32_t child
        while self._nodes[node].literals and self._has_segment(search, depth):
            child = key_table_get(&self._edges, search.hash[depth], node, search.segment[depth], &self.work)
            if child < 0:
                break
            node = child
            depth += 1
        while node >= 0:
            self.work += 1
            if self._nodes[node].rules >= 0:
                found = self._first_rule(self._nodes[node].rules, search.view)
                if found != -1:
                    return found
            node = self._nodes[node].parent
        return -1

    cdef int _search_regexes(self, int32_t number, RequestView* view) except -2:
        cdef RegexSet patterns
        cdef tuple rules
        cdef const RouteRule* rule
        patterns, rules = self._regex_sets[number]
        for position in patterns.find(span_bytes(view.path)):
            rule = &self._rules[<int>rules[position]]
            self.work += 1
            if rule.plain or self._rule_holds(rule, view):
                return rule.index
        return -1

    cdef int _first_rule(self, int32_t number, RequestView* view) except -2:
        cdef int at = self._lists[number].at
        cdef int end = at + self._lists[number].count
        cdef const RouteRule* rule
        while at < end:
            rule = &self._rules[at]
            self.work += 1
            if rule.plain or self._rule_holds(rule, view):
                return rule.index
            at += 1
        return -1

    cdef bint _rule_holds(self, const RouteRule* rule, RequestView* view) except -1:
        cdef int i
        cdef bint found = rule.method_count == 0
        if not found and view.method_id != METHOD_OTHER:
            found = rule.method_mask >> view.method_id & 1
        elif not found:
            for i in range(rule.method_at, rule.method_at + rule.method_count):
                if span_equal(view.method, self._methods[i]):
                    found = True
                    break
        if not found:
            return False
        for i in range(rule.condition_at, rule.condition_at + rule.condition_count):
            if not condition_holds(&self._conditions[i], view, self._patterns, &self._scratch):
                return False
        return True

    def find(
        self, bytes method, bytes host, bytes path, bytes query=None, fields=(),
    ):
        """Match one request, already in normal form; for explain and the tests.

        fields: (name, value) pairs. Returns (route index or -1, values of the {name} segments).
        """
        cdef RequestView view
        cdef Field* lines = <Field*>_table_array(len(fields), sizeof(Field))
        cdef int i, found
        cdef bytes name, value
        try:
            memset(&view, 0, sizeof(view))
            for i, (name, value) in enumerate(fields):
                lines[i].name = _kept_span(name)
                lines[i].value = _kept_span(value)
            view.method = _kept_span(method)
            view.method_id = METHOD_IDS.get(method, METHOD_OTHER)
            view.host = _kept_span(host)
            view.path = _kept_span(path)
            view.query = span_of(NULL, 0) if query is None else _kept_span(query)
            view.fields = lines
            view.field_count = len(fields)
            found = self.match(&view)
            return found, tuple([span_bytes(view.captures[i]) for i in range(view.capture_count)])
        finally:
            free(lines)
