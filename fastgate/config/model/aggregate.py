"""Aggregation: one request of a client, several requests to upstreams, one answer.

Texts with placeholders, such as "/users/{path.id}", have the form "template"; see config/templates.py.
"""

from typing import Annotated, Literal

from msgspec import Struct

from fastgate.config.model.basics import KIB, MIB, MS, SECOND, StatusRange, doc
from fastgate.config.model.resilience import Retry

MAX_PARTS = 64
MAX_ITEMS = 10_000


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition on a value: one of `equals`, `not_equals`, `one_of` and `present`."""

    value: Annotated[str, doc('What is looked at, such as "{part.user.tier}".', "template")]
    equals: Annotated[str | None, doc("It is this text; of a number or a boolean, as in JSON.")] = None
    not_equals: Annotated[str | None, doc("It is there, and is another text.")] = None
    one_of: Annotated[tuple[str, ...], doc("It is one of these texts.")] = ()
    present: Annotated[
        bool | None, doc("Whether it is there. Alone, a condition asks for that.", default="true")
    ] = None


class ListFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which elements of a list stay: those for which the condition holds, as that of `when`."""

    list: Annotated[str, doc('Where the list is; "" for the part\'s own.', "json-path", empty=True)] = ""
    value: Annotated[str, doc('What is looked at: "{item}", "{item.price}".', "template")]
    equals: Annotated[str | None, doc("It is this text.")] = None
    not_equals: Annotated[str | None, doc("It is there, and is another text.")] = None
    one_of: Annotated[tuple[str, ...], doc("It is one of these texts.")] = ()
    present: Annotated[bool | None, doc("Whether it is there.", default="true")] = None


class ForEach(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request for each element of a list, which is `{item}` in the part's templates and `{index}` its
    place from 0. The part's value is the list of the answers, in the order of the elements."""

    list: Annotated[str, doc('The list: "{part.orders.items}".', "template")]
    max_items: Annotated[
        int, doc("Elements, at most; with more of them the part fails.", ge=1, le=MAX_ITEMS)
    ] = 100
    concurrency: Annotated[
        int, doc("Requests of this part that are under way at one time.", ge=1, le=1000)
    ] = 16
    on_failure: Annotated[
        Literal["fail", "null", "omit"],
        doc("An element whose request fails: the whole part does, or it is null, or left out."),
    ] = "fail"


class GraphQl(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GraphQL request (POST, application/json). The part's value is its `data`; `errors` fail the part."""

    query: Annotated[str, doc("The document. It has no placeholders: values go by `variables`.", "text")]
    operation: Annotated[str, doc("Which operation of the document.", empty=True, default="the only one")] = (
        ""
    )
    variables: Annotated[
        dict[str, str],
        doc(
            "Variables by name; one that is nothing but a placeholder keeps the type of its value.",
            "template",
        ),
    ] = {}
    partial: Annotated[bool, doc("An answer with `data` beside `errors` is good enough.")] = False


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request to an upstream, and what becomes of its answer. It is sent as soon as all parts that its
    texts name are there."""

    # -- the request
    upstream: Annotated[str, doc("Name of the upstream that is asked.", "upstream-ref")]
    method: Annotated[str, doc("The method.", "method", default='"GET", or "POST" with a body')] = ""
    path: Annotated[
        str, doc("The path, with placeholders; what they give stays within its segment.", "template-path")
    ] = "/"
    query: Annotated[
        dict[str, str],
        doc("Query parameters; one without a value is left out.", "template", names="query-name"),
    ] = {}
    pass_query: Annotated[
        tuple[str, ...], doc("Parameters of the client's query that go along, as they came.", "query-name")
    ] = ()
    headers: Annotated[
        dict[str, str],
        doc("Header fields; one without a value is left out.", "template", names="set-header-name"),
    ] = {}
    pass_headers: Annotated[
        tuple[str, ...], doc("Fields of the client's request that go along.", "set-header-name")
    ] = ()
    json: Annotated[
        str | None,
        doc(
            "A body, as JSON whose strings may hold placeholders. One that is nothing but a placeholder "
            "keeps the type of its value; a member or an element without a value is left out.",
            "template-json",
        ),
    ] = None
    form: Annotated[
        dict[str, str],
        doc("A body, as fields of a form (application/x-www-form-urlencoded).", "template", names="text"),
    ] = {}
    pass_body: Annotated[bool, doc("The client's body goes along, with its Content-Type.")] = False
    graphql: GraphQl | None = None
    # -- when and how often
    when: Annotated[
        tuple[When, ...], doc("Only if all of these hold; else the part is skipped.", one_or_many=True)
    ] = ()
    after: Annotated[
        tuple[str, ...], doc("Parts that must have succeeded before, though no text names them.", "part-ref")
    ] = ()
    for_each: ForEach | None = None
    race: Annotated[
        tuple[str, ...],
        doc("Upstreams that are asked at the same time; the first success wins.", "upstream-ref"),
    ] = ()
    fallback: Annotated[
        tuple[str, ...], doc("Upstreams that are asked, one by one, when that fails.", "upstream-ref")
    ] = ()
    coalesce: Annotated[
        bool,
        doc(
            "One request for all exchanges of a worker that would send the same one now (GET and HEAD alone)."
        ),
    ] = False
    cache: Annotated[
        int | None,
        doc(
            "How long a worker keeps a success, shorter if the answer's Cache-Control says so. GET alone.",
            "duration",
            minimum=MS,
            default="not at all",
        ),
    ] = None
    retry: Annotated[Retry | None, doc("Further attempts, in place of what the upstream says.")] = None
    timeout: Annotated[
        int,
        doc(
            "From its sending to its last byte; never longer than what is left of the whole.",
            "duration",
            minimum=MS,
        ),
    ] = 5 * SECOND
    # -- what is good enough
    required: Annotated[bool, doc('Without it there is no answer (with `policy` "required").')] = True
    success: Annotated[
        tuple[StatusRange, ...],
        doc("Status codes that are successes.", "status-range", one_or_many=True, least=1),
    ] = (StatusRange(200, 299),)
    statuses: Annotated[
        dict[str, int],
        doc(
            'What the client gets when this part is why there is no answer: by the part\'s status ("404", '
            '"4xx") or "timeout" or "failure". Else 504 for a timeout and 502.',
            names="failure-class",
        ),
    ] = {}
    default: Annotated[
        str | None,
        doc("The value in place of one that failed, as JSON. The part counts as failed still.", "json"),
    ] = None
    max_body: Annotated[int, doc("Bytes of an answer, at most.", "size", minimum=1)] = MIB
    # -- what becomes of the answer, in this order
    decode: Annotated[
        Literal["auto", "json", "text", "base64", "xml", "form", "csv"],
        doc('How the body is read; "auto": JSON and text by Content-Type, all else base64.'),
    ] = "auto"
    target: Annotated[str, doc("The value within the body that is taken.", "json-path", empty=True)] = ""
    jmespath: Annotated[
        str, doc("A JMESPath expression for what the keys below do not reach.", "jmespath", empty=True)
    ] = ""
    filter: Annotated[tuple[ListFilter, ...], doc("Which elements of its lists stay.", one_or_many=True)] = ()
    pick: Annotated[
        tuple[str, ...],
        doc('Only these members: "id", "owner.name", "items[].sku".', "json-path", one_or_many=True),
    ] = ()
    drop: Annotated[tuple[str, ...], doc("Without these members.", "json-path", one_or_many=True)] = ()
    rename: Annotated[
        dict[str, str], doc('Members by another name: "owner.name" = "title".', "text", names="json-path")
    ] = {}
    map: Annotated[
        dict[str, str],
        doc(
            'Lists of objects made lists of one of their members: "items" = "sku"; "" for the part\'s own.',
            "json-path",
            names="json-path-or-root",
        ),
    ] = {}
    flatten: Annotated[
        tuple[str, ...], doc("Lists of lists made one list.", "json-path-or-root", one_or_many=True)
    ] = ()
    group: Annotated[
        str,
        doc(
            'Where in the answer it goes: "user", "page.user"; empty: its members go to the top.',
            "json-path",
            empty=True,
        ),
    ] = ""
    omit: Annotated[bool, doc("It is there for other parts alone, and not in the answer.")] = False
    answer_headers: Annotated[
        tuple[str, ...], doc("Fields of its answer that the client gets.", "header-name")
    ] = ()


class Aggregate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks several upstreams and makes one answer of theirs."""

    parts: Annotated[dict[str, Part], doc("The requests, by name.", names="part-name", least=1)]
    policy: Annotated[
        Literal["required", "all", "any", "first", "quorum"],
        doc(
            'When there is an answer: "required" (all parts that are), "all" (each, whatever it says), "any" '
            '(at least one), "first" (the first that succeeds; the others are given up), "quorum".'
        ),
    ] = "required"
    quorum: Annotated[int, doc('Parts that must succeed, with `policy = "quorum"`.', ge=1, le=MAX_PARTS)] = 1
    timeout: Annotated[
        int,
        doc("All parts together. What is not there then has failed.", "duration", minimum=MS),
    ] = 10 * SECOND
    answer: Annotated[
        Literal["object", "list"],
        doc('"list": the elements of all parts one after the other, in their order.'),
    ] = "object"
    merge: Annotated[
        Literal["shallow", "deep"],
        doc('Objects of two parts at one place: a collision, or ("deep") merged member by member.'),
    ] = "shallow"
    on_collision: Annotated[
        Literal["fail", "first", "last"],
        doc(
            "Two parts that have the same member: there is no answer (502), or the part that stands first "
            "or last in the file wins, and the log tells it."
        ),
    ] = "fail"
    status: Annotated[int, doc("The status of a whole answer.", ge=200, le=299)] = 200
    partial_status: Annotated[int, doc("The status of an answer that lacks a part.", ge=200, le=299)] = 200
    errors_member: Annotated[
        str, doc('A member that names the parts that failed, such as "_errors".', empty=True, default="none")
    ] = ""
    stream: Annotated[
        Literal["", "ndjson", "events", "json"],
        doc(
            "Parts are sent as they arrive: lines of JSON, server-sent events, or one JSON object whose "
            "members are in the order of the parts.",
            default="the answer is sent whole",
        ),
    ] = ""
    max_memory: Annotated[
        int,
        doc(
            "Bytes of all answers together, as text; decoded bodies and the whole answer included.",
            "size",
            minimum=KIB,
        ),
    ] = 16 * MIB
    max_body: Annotated[
        int, doc("The client's body, where a part reads it or passes it on.", "size", minimum=0)
    ] = MIB
