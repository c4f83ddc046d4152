"""Where the document that holds the keys comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from fastgate.plugins import Host, SubrequestError, SubResponse
from fastgate.plugins._auth.jwk import MAX_JWKS

FETCH_TIMEOUT: Final = 5.0
_ACCEPT: Final = {"accept": "application/jwk-set+json, application/json"}


class SourceError(Exception):
    """The document can't be had. The text says why, for the log."""


class Source(Protocol):
    """``label``: how the log calls it."""

    label: str

    async def load(self) -> bytes:
        """The document as it is now. Raises SourceError."""


class UrlSource:
    """An absolute URL, by ``Host.fetch``."""

    def __init__(self, host: Host, url: str) -> None:
        self.label = url
        self._host = host

    async def load(self) -> bytes:
        try:
            answer = await self._host.fetch(
                self.label, headers=_ACCEPT, timeout=FETCH_TIMEOUT, limit=MAX_JWKS
            )
        except SubrequestError as error:
            raise SourceError(str(error)) from None
        return _document(answer)


class UpstreamSource:
    """A path at an upstream of the configuration."""

    def __init__(self, host: Host, upstream: str, path: str) -> None:
        self.label = f"{path} of upstream {upstream}"
        self._host, self._upstream, self._path = host, upstream, path

    async def load(self) -> bytes:
        try:
            answer = await self._host.subrequest(
                self._upstream, path=self._path, headers=_ACCEPT, timeout=FETCH_TIMEOUT, limit=MAX_JWKS
            )
        except SubrequestError as error:
            raise SourceError(str(error)) from None
        return _document(answer)


def _document(answer: SubResponse) -> bytes:
    # A redirect is not followed: the keys come from the place that the configuration names.
    if answer.status != 200:
        raise SourceError(f"status {answer.status}")
    if answer.truncated:
        raise SourceError(f"more than {MAX_JWKS} bytes")
    return answer.body


class FileSource:
    """A file. It is small and local, so it is read in the loop."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path

    async def load(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_JWKS + 1)
        except OSError as error:
            raise SourceError(error.strerror or "it can't be read") from None
        if len(data) > MAX_JWKS:
            raise SourceError(f"more than {MAX_JWKS} bytes")
        return data
