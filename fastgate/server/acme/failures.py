"""What can go wrong with a directory, in one form: words for the log, and when it may be asked again."""

from __future__ import annotations

from typing import Final

import requests
from acme import errors, messages
from josepy.errors import Error as JoseError

__all__ = ["Failure", "failure_of"]

MOST_TEXT: Final = 1000


class Failure(Exception):
    """str(): what an operator should read. code: the problem's type without its prefix, "" where there is
    none. retry_after: seconds that the directory asked for, 0 for none. everyone: whoever asks this directory
    now will meet it, so the other orders wait as well. account_refused: the account itself may be what the
    directory does not take."""

    def __init__(
        self, text: str, *, code: str = "", retry_after: float = 0.0, everyone: bool = False
    ) -> None:
        super().__init__(_plain(text))
        self.code = code
        self.retry_after = retry_after
        self.everyone = everyone
        self.account_refused = False

    @property
    def rate_limited(self) -> bool:
        return self.code == "rateLimited"


def _plain(text: str) -> str:
    """One line without control characters: it came from outside, and goes to the log."""
    return "".join(c if c.isprintable() else " " for c in text)[:MOST_TEXT]


def problem_text(problem: messages.Error) -> str:
    """Type, detail and those of the sub-problems (RFC 8555 6.7). The library checks none of their types."""
    parts = [f"{_code(problem)}: {problem.detail or problem.title or 'without a reason'}"]
    for one in (problem.subproblems or ())[:10]:
        whom = f" ({one.identifier.value})" if one.identifier is not None else ""
        parts.append(f"{_code(one)}{whom}: {one.detail or one.title or ''}")
    return "; ".join(parts)


def failure_of(error: Exception, retry_after: float) -> Failure:
    """retry_after: of the last answer, in seconds; 0: it had none."""
    match error:
        case Failure():
            return error
        case errors.IssuanceError():
            return Failure(problem_text(error.error), code=_code(error.error), retry_after=retry_after)
        case messages.Error():
            code = _code(error)
            everyone = code in ("serverInternal", "externalAccountRequired", "userActionRequired")
            return Failure(problem_text(error), code=code, retry_after=retry_after, everyone=everyone)
        case requests.exceptions.RequestException():
            return Failure(
                f"the directory can't be reached: {_cause(error)}", retry_after=retry_after, everyone=True
            )
        case errors.ClientError():
            answer = error.args[0] if error.args else None
            if isinstance(answer, requests.Response):
                said = f"it answered {answer.status_code} {answer.reason or ''}, and no problem document"
                return Failure(f"the directory: {said}", retry_after=retry_after, everyone=True)
            return Failure(f"the directory: {error}", retry_after=retry_after, everyone=True)
        case JoseError() | errors.Error() | ValueError() | KeyError() | TypeError() | AttributeError():
            # The library meets answers of the wrong shape with any of them.
            return Failure(
                f"the directory's answer is not understood: {error!r}",
                retry_after=retry_after,
                everyone=True,
            )
    raise error


def _code(problem: messages.Error) -> str:
    return str(problem.typ or "").rpartition(":")[2]


def _cause(error: BaseException) -> str:
    """The innermost of a chain of wrapped errors: the outer ones only repeat it."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return str(reason or error)
