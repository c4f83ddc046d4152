# The route table under construction: plain Python structures, frozen into C arrays by RouteTable._freeze.

import os
from collections.abc import Iterable
from typing import Any

from libc.string cimport memset

METHOD_IDS = {
    b"GET": METHOD_GET,
    b"HEAD": METHOD_HEAD,
    b"POST": METHOD_POST,
    b"PUT": METHOD_PUT,
    b"DELETE": METHOD_DELETE,
    b"OPTIONS": METHOD_OPTIONS,
    b"PATCH": METHOD_PATCH,
    b"TRACE": METHOD_TRACE,
    b"CONNECT": METHOD_CONNECT,
}


cdef void* _table_array(Py_ssize_t count, size_t size) except NULL:
    cdef void* array = calloc(<size_t>count + 1, size)
    if array == NULL:
        raise MemoryError
    return array


cdef Span _kept_span(bytes text):
    # Borrowed: the caller keeps `text`.
    return span_of(text, len(text))


class _BuildGroup:
    def __init__(self) -> None:
        self.templates = -1
        self.prefixes = -1
        self.regex_set = -1
        self.anything = -1
        self.literals = False
        self.regexes = []           # (pattern, rule), in file order


class _BuildNode:
    def __init__(self, parent: int) -> None:
        self.rules = -1
        self.parent = parent
        self.capture = -1
        self.literals = False


class _BuildRule:
    def __init__(self, index: int, match: Any) -> None:
        self.index = index
        self.method_mask = 0
        self.method_at = self.method_count = 0
        self.condition_at = self.condition_count = 0
        # Methods before none, then most headers, most query parameters, most cookies, then file order.
        self.precedence = (
            not match.methods, -len(match.headers), -len(match.query), -len(match.cookies), index
        )


class _TableBuilder:
    def __init__(self, routes: Iterable[tuple[int, Any]]) -> None:
        self.hosts = {}             # (0 exact | 1 wildcard | 2 any, name) -> group
        self.paths = {}             # (group, path) -> list
        self.edges = {}             # (node, segment) -> node
        self.groups = []
        self.nodes = []
        self.lists = []             # rule numbers
        self.rules = []
        self.conditions = []        # (place, kind, pattern, name, value)
        self.methods = []
        self.patterns = {}          # regex of a condition -> position
        self.kept = []
        self.wildcard_labels = 0
        self.last_index = -1
        for index, route in routes:
            try:
                self.add(index, route.match)
            except ValueError as error:
                raise ValueError(f"route {route.name!r}: {error}") from None

    def precedence(self, rule: int) -> tuple:
        return self.rules[rule].precedence

    def regex_sets(self) -> list:
        sets = []
        for group in self.groups:
            if group.regexes:
                group.regex_set = len(sets)
                sets.append((
                    RegexSet([pattern for pattern, _ in group.regexes]),
                    tuple([rule for _, rule in group.regexes]),
                ))
        return sets

    def add(self, index: int, match: Any) -> None:
        rule = len(self.rules)
        if index <= self.last_index:
            raise ValueError("routes must come in file order")
        self.last_index = index
        self.rules.append(self.rule(index, match))
        if sum(value is not None for value in (match.path, match.prefix, match.regex)) > 1:
            raise ValueError("path, prefix and regex exclude each other")
        if match.host:
            patterns = {parse_host_pattern(host) for host in match.host}
            for wildcard, host in sorted(patterns):
                if wildcard:
                    labels = host.count(b".") + 1
                    if labels > 63:
                        raise ValueError("a wildcard host of more than 63 labels")
                    self.wildcard_labels |= 1 << labels
                self.add_path(self.group(int(wildcard), host), match, rule)
        else:
            self.add_path(self.group(2, b""), match, rule)

    def group(self, kind: int, host: bytes) -> int:
        number = self.hosts.setdefault((kind, host), len(self.groups))
        if number == len(self.groups):
            self.groups.append(_BuildGroup())
        return number

    def add_path(self, number: int, match: Any, rule: int) -> None:
        group = self.groups[number]
        if match.path is not None:
            pattern = parse_path_pattern(match.path)
            if pattern.names:
                group.templates = self.root(group.templates)
                node = self.descend(group.templates, pattern.segments)
                self.end_at(node, rule)
            else:
                group.literals = True
                rules = self.paths.setdefault((number, pattern.literal), len(self.lists))
                self.append(rules, rule)
        elif match.prefix is not None:
            group.prefixes = self.root(group.prefixes)
            self.end_at(self.descend(group.prefixes, parse_prefix(match.prefix).split(b"/")[1:]), rule)
        elif match.regex is not None:
            compile_regex(match.regex)
            group.regexes.append((match.regex, rule))
        else:
            if group.anything < 0:
                group.anything = len(self.lists)
            self.append(group.anything, rule)

    def append(self, number: int, rule: int) -> None:
        if number == len(self.lists):
            self.lists.append([])
        self.lists[number].append(rule)

    def root(self, node: int) -> int:
        return node if node >= 0 else self.node(-1)

    def node(self, parent: int) -> int:
        self.nodes.append(_BuildNode(parent))
        return len(self.nodes) - 1

    def descend(self, node: int, segments: Iterable[bytes | None]) -> int:
        for segment in segments:
            here = self.nodes[node]
            if segment is None:
                if here.capture < 0:
                    here.capture = self.node(node)
                node = here.capture
                continue
            here.literals = True
            child = self.edges.get((node, segment))
            if child is None:
                child = self.edges[node, segment] = self.node(node)
            node = child
        return node

    def end_at(self, node: int, rule: int) -> None:
        here = self.nodes[node]
        if here.rules < 0:
            here.rules = len(self.lists)
        self.append(here.rules, rule)

    def rule(self, index: int, match: Any) -> _BuildRule:
        rule = _BuildRule(index, match)
        rule.method_at = len(self.methods)
        for method in match.methods:
            name = self.keep(method)
            rule.method_mask |= 1 << METHOD_IDS[name] if name in METHOD_IDS else 0
            self.methods.append(name)
        rule.method_count = len(self.methods) - rule.method_at
        rule.condition_at = len(self.conditions)
        for place, table in ((COND_HEADER, match.headers), (COND_QUERY, match.query), (COND_COOKIE, match.cookies)):
            for name, condition in table.items():
                self.conditions.append(self.condition(place, name, condition))
        rule.condition_count = len(self.conditions) - rule.condition_at
        return rule

    def condition(self, place: int, name: str, condition: Any) -> tuple:
        kept = self.keep(name.lower() if place == COND_HEADER else name)
        if condition.kind == "present":
            return place, COND_PRESENT, -1, kept, b""
        if condition.kind == "equal":
            return place, COND_EQUAL, -1, kept, self.keep(condition.value)
        if condition.kind != "regex":
            raise ValueError(f"unknown kind of condition {condition.kind!r}")
        compile_regex(condition.value)
        pattern = self.patterns.setdefault(condition.value, len(self.patterns))
        return place, COND_REGEX, pattern, kept, b""

    def keep(self, text: str) -> bytes:
        kept = text.encode()
        self.kept.append(kept)
        return kept
