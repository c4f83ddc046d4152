"""Errors of TOML syntax, as tomllib tells them, in words and places that help whoever wrote the file."""

from __future__ import annotations

import re
from typing import Final

# tomllib ends its messages with the place.
_PLACE: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_TWICE: Final = re.compile(
    r"Cannot (?:declare|mutate immutable namespace|redefine namespace) \((.*?),?\)(?: twice)?"
)


def place_after(before: str) -> tuple[int, int]:
    """Line and column, both from 1, of what follows the text ``before``."""
    before = before.replace("\r\n", "\n")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def explain_syntax_error(raw: str, text: str) -> tuple[int, int, str, str]:
    """(line, column, message, hint) for the message ``raw`` of tomllib about ``text``."""
    match = _PLACE.fullmatch(raw)
    message = match[1] if match else raw
    text = text.replace("\r\n", "\n")
    line, column = place_after(text)
    if match and match[2]:
        line, column = int(match[2]), int(match[3])
    written = text.split("\n")[line - 1]
    start = len(written) - len(written.lstrip()) + 1
    rest = written[column - 1 :]
    if message == "Cannot overwrite a value":
        return line, start, "TOML: this key has a value already", "a key stands once in its table"
    twice = _TWICE.fullmatch(message)
    if twice:
        key = ".".join(part.strip()[1:-1] for part in twice[1].split(", "))
        return line, start, f"TOML: {key} is defined already", "a table stands once; [[ ]] adds to an array"
    if message == "Invalid value" and not rest.strip():
        return line, column, "TOML: a value is missing", ""
    if message == "Invalid value":
        return line, column, "TOML: this is not a value", "strings stand in quotes"
    if message.startswith(("Illegal character '\\n'", "Unterminated string", 'Expected "\'"')):
        return line, column, "TOML: the string does not end", "a quote is missing"
    if message.startswith("Unescaped '\\' in a string") or "Invalid hex value" in message:
        return (
            line,
            column,
            "TOML: no such escape in a string",
            "in 'single quotes' a backslash is a backslash",
        )
    if message.startswith("Expected '=' after a key"):
        hint = 'TOML has "=" where YAML has ":"' if rest.startswith(":") else ""
        return line, column, 'TOML: expected "=" after the key', hint
    message = message[:1].lower() + message[1:]
    return line, column, "TOML: " + "".join(c if c.isprintable() else "?" for c in message), ""
