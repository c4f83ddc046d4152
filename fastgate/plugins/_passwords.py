"""Password hashes of ``basic``: which kinds are taken, and whether a password fits one."""

from __future__ import annotations

import re
from typing import Final

#: bcrypt reads no more than so many bytes: what stands behind them would not count (OpenBSD's limit).
BCRYPT_MAX_BYTES: Final = 72
# What one verification may cost. A hash beyond it would let a single request hold a thread for seconds.
_BCRYPT_MAX_COST: Final = 15
_ARGON2_MAX_KIB: Final = 1 << 20
_ARGON2_MAX_PASSES: Final = 20

_BCRYPT: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_ARGON2ID: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,8}),t=([1-9][0-9]{0,8}),p=([1-9][0-9]{0,2})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,86}"
)


def check_hash(text: str) -> str:
    """What is wrong with a hash, "" for nothing. The hash is never shown."""
    if found := _BCRYPT.fullmatch(text):
        return "" if 4 <= int(found[1]) <= _BCRYPT_MAX_COST else f"bcrypt's cost is 4 to {_BCRYPT_MAX_COST}"
    if found := _ARGON2ID.fullmatch(text):
        if int(found[1]) < 8 * int(found[3]):
            return "argon2's m is at least 8 times its p (RFC 9106 3.1)"
        if int(found[1]) > _ARGON2_MAX_KIB or int(found[2]) > _ARGON2_MAX_PASSES:
            return f"argon2's m is at most {_ARGON2_MAX_KIB} (KiB), its t at most {_ARGON2_MAX_PASSES}"
        return ""
    return "expected an argon2id ($argon2id$v=19$...) or bcrypt ($2b$...) hash; weaker ones are not taken"


def is_bcrypt(text: str) -> bool:
    return text.startswith("$2")


def fits(text: str, password: bytes) -> bool:
    """Whether it is the password of that hash. Takes long: for a thread. Both libraries let go of the GIL."""
    if is_bcrypt(text):
        import bcrypt

        return bcrypt.checkpw(password, text.encode())
    from argon2 import PasswordHasher
    from argon2.exceptions import VerifyMismatchError

    try:
        return PasswordHasher().verify(text, password)
    except VerifyMismatchError:
        return False


def stand_in() -> str:
    """A hash that no password fits, for a gateway that has no users yet."""
    import secrets

    from argon2 import PasswordHasher

    return PasswordHasher().hash(secrets.token_bytes(32))


def parse_htpasswd(data: bytes) -> dict[str, str]:
    """Hashes by user from lines ``user:hash``; empty lines and # comments count for nothing. Raises
    ValueError, which names the line alone."""
    users: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8-sig").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, colon, rest = text.partition(":")
        problem = check_name(name) if colon else "expected user:hash"
        problem = problem or check_hash(rest)
        if not problem and name in users:
            problem = "the user is listed twice"
        if problem:
            raise ValueError(f"line {number}: {problem}")
        users[name] = rest
    return users


def check_name(name: str) -> str:
    """What is wrong with a user's name, "" for nothing (RFC 7617 2)."""
    if not name or ":" in name or has_controls(name):
        return "a user's name is not empty and has neither colons nor control characters (RFC 7617 2)"
    return ""


def has_controls(text: str) -> bool:
    return any(char < " " or "\x7f" <= char <= "\x9f" for char in text)
