"""What the structs of the model are made of: units, descriptions of keys, secrets, rates."""

from typing import Any, Final, NamedTuple

from msgspec import Meta, Struct

UNLIMITED: Final = -1

MS: Final = 1_000_000
SECOND: Final = 1_000 * MS
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
KIB: Final = 1024
MIB: Final = 1024 * KIB


class Secret:
    """A value from an environment variable or a file. Only ``reveal()`` gives it out, repr and str never.

    ``source`` says where it came from ("env NAME", "file PATH") and may be shown.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str) -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __format__(self, spec: str) -> str:
        return format("<secret>", spec)

    def __eq__(self, other: object) -> bool:
        # A reload asks whether anything changed: two secrets are equal when their values are.
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("fastgate.Secret", self._value))

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not serialised")


def doc(description: str, form: str = "", **extra: Any) -> Meta:
    """The description of one key. ``form``: of its text, or of each item or value where it holds several.

    ``extra``: ``names`` (form of a table's own keys), ``one_or_many`` (a single item may stand without
    its array), ``default`` (shown in the reference where the default depends on something), ``derived``,
    ``switch`` (true stands for the table without keys, false for none), ``minimum`` (of a duration or
    size), ``unlimited`` (the word is allowed for a size), ``shorthand`` (the key that a bare string
    fills), ``least`` (items of an array), ``secret`` (a table may say where the value comes from),
    ``empty`` ("" is allowed and means none), ``numbers`` (an integer stands for its text).
    """
    ge, le = extra.pop("ge", None), extra.pop("le", None)
    return Meta(description=description, ge=ge, le=le, extra={"form": form, **extra})


def derived(description: str) -> Meta:
    return doc(description, derived=True)


class Rate(Struct, frozen=True):
    """``count`` in ``per_ns`` nanoseconds."""

    count: int
    per_ns: int


class StatusRange(NamedTuple):
    """Status codes from ``low`` to ``high``, both included."""

    low: int
    high: int
