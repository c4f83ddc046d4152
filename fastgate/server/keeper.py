"""Which configuration is in force: it is read, checked, applied, numbered and kept here, whoever asks for it.

The keeper knows no listener and no process: ``apply`` puts a configuration in force, in one process or in all
workers, or changes nothing. Versions count from 1 and go on over restarts where their history is on the disk.
A version is what the files said: reading the same again makes no new one. A rollback makes one, with what an
earlier one said; the files then say something else, and stay out of force until they are read again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from fastgate.config import Config, ConfigError, Loaded, Sources, load, load_sources
from fastgate.config.diff import Difference, difference, summary
from fastgate.config.problems import report
from fastgate.server.history import Entry, History, now
from fastgate.server.operations import (
    Cause,
    Outdated,
    ReloadError,
    ReloadResult,
    UnknownName,
    VersionView,
    result_of,
)

__all__ = ["Applied", "Keeper", "at_once", "read_again"]


class Applied(NamedTuple):
    """What there is to tell of it: listeners that were opened (address, name), and warnings, a line each."""

    listening: list[tuple[str, str]]
    warnings: list[str]


# Runs a function with arguments, and gives what it returns: asyncio.to_thread.
Aside = Callable[..., Awaitable[Any]]


async def at_once(act: Callable[..., Any], *args: Any) -> Any:
    """An ``Aside`` that holds the loop up meanwhile."""
    return act(*args)


class LastRead(Struct, frozen=True):
    """What the files said when they were last read with success, and the names of files that a later attempt
    that failed has met: a change of any of them is worth another one."""

    sources: Sources
    failed: frozenset[str] = frozenset()


def read_again(config: Config) -> Loaded:
    """The files of ``config``, as they are now. Raises ConfigError."""
    return load(*(config.sources.roots or (config.source,)))


class Keeper:
    """config: what the gateway begins with. apply: puts a configuration in force, or raises ReloadError and
    has changed nothing. It is never called twice at a time. tell: takes each line that an operator should
    read. read: the files of a configuration again; again: what was kept of one. aside: runs what takes
    a while; in a process that forks there must be no thread for it (``at_once``).
    files: what they say, where ``config`` is not from them but was in force before.
    """

    def __init__(
        self,
        config: Config,
        apply: Callable[[Config], Awaitable[Applied]],
        tell: Callable[[str], None],
        history: History,
        *,
        read: Callable[[Config], Loaded] = read_again,
        again: Callable[[Sources], Loaded] = load_sources,
        aside: Aside = asyncio.to_thread,
        files: Sources | None = None,
    ) -> None:
        self.config = config
        self.last_read = LastRead(files or config.sources)
        self.applied = now()
        self._apply = apply
        self._tell = tell
        self._history = history
        self._read = read
        self._again = again
        self._aside = aside
        self._lineage = secrets.token_hex(8)
        self._changing = asyncio.Lock()
        self._current = _entry(0, config.sources, "start", 0, "")
        self.changes = 0  # attempts that put a configuration in force
        self.failures = 0  # attempts that changed nothing
        self.failure = ""  # why the last attempt changed nothing; "" when it did

    async def begin(self) -> None:
        """The configuration that it was made with is in force."""
        self._current = await self._aside(self._begin)
        self.applied = now()

    # -- what is in force

    @property
    def version(self) -> int:
        return self._current.version

    @property
    def etag(self) -> str:
        """As HTTP has it: of this version, and of no other gateway's."""
        known = self._current.sources.known
        return f'"{self.version}-{self._current.digest[:16] if known else self._lineage}"'

    def entry(self, version: int | None = None) -> Entry:
        """That version, or the one in force. Raises UnknownName."""
        found = self._current if version is None else self._history.find(version)
        if found is None:
            raise UnknownName(f"version {version} is not kept")
        return found

    def versions(self) -> list[VersionView]:
        """Oldest first; the one in force is the last."""
        files = self.last_read.sources.digest
        return [
            VersionView(
                version=each.version,
                digest=each.digest,
                time=each.time,
                cause=each.cause,
                of=each.of,
                changes=each.changes,
                in_force=each.version == self.version,
                as_files=each.digest == files,
            )
            for each in self._history.entries()
        ]

    def compare(self, old: int, new: int) -> Difference:
        """What changed between two versions. Raises UnknownName."""
        return difference(self.entry(old).sources, self.entry(new).sources)

    # -- changing it

    async def reload(
        self, config: Config | None = None, *, cause: Cause = "program", expected: str | None = None
    ) -> ReloadResult:
        """Puts a configuration in force; None: that of the files, read anew.

        How it went is told. expected: the etag of the one that it is to take the place of. Raises Outdated
        where that is not in force, and ReloadError; then nothing has changed."""
        return await self._change(lambda: self._candidate(config), cause, 0, expected)

    async def reload_certificates(self, *, expected: str | None = None) -> ReloadResult:
        """Reads the files of certificates, keys, authorities and revocation lists anew, for what is in force,
        whatever its own files say by now. It stays the same version. Raises as ``reload``."""
        return await self._change(self._with_certificates, "program", 0, expected, "certificates ")

    async def rollback(self, version: int | None = None, *, expected: str | None = None) -> ReloadResult:
        """Puts an earlier version in force again, as a new one; None: the last one that said something else.

        Raises as ``reload``, and UnknownName for a version that is not kept."""
        entry = self.entry(version) if version is not None else self._one_before()
        return await self._change(lambda: self._kept(entry), "rollback", entry.version, expected)

    def _one_before(self) -> Entry:
        for entry in reversed(self._history.entries()):
            if entry.version < self.version and entry.digest != self._current.digest:
                return entry
        raise UnknownName("no earlier version is kept")

    async def _change(
        self,
        candidate: Callable[[], Awaitable[Loaded]],
        cause: Cause,
        of: int,
        expected: str | None,
        what: str = "",
    ) -> ReloadResult:
        try:
            async with self._changing:
                if expected is not None and expected != self.etag:
                    raise Outdated(f"version {self.version} is in force, with another ETag")
                result = await self._exchange(await candidate(), cause, of)
        except ReloadError as error:
            self.failures += 1
            self.failure = str(error)
            for line in str(error).splitlines():
                self._tell(line if error.problems else f"fastgate: {line}")
            self._tell("fastgate: not rolled back" if of else f"fastgate: {what}not reloaded")
            raise
        self.changes += 1
        self.failure = ""
        for line in result.warnings:
            self._tell(line)
        for address, name in result.listening:
            self._tell(f"fastgate: listening on {address} ({name})")
        did = f"rolled back to version {of}, as version {result.version}" if of else f"{what}reloaded"
        self._tell(f"fastgate: {did} ({result})")
        return result

    async def _exchange(self, loaded: Loaded, cause: Cause, of: int) -> ReloadResult:
        before, config = self.config, loaded.config
        applied = await self._apply(config)
        self.config = config
        if config.sources.digest != self._current.digest or not config.sources.known or of:
            self._current = await self._aside(self._keep, config.sources, cause, of)
        self.applied = now()
        warnings = [*report(loaded.warnings), *applied.warnings]
        return result_of(before, config, applied.listening, warnings, self.version)

    async def _candidate(self, config: Config | None) -> Loaded:
        if config is not None:
            return Loaded(config, ())
        try:
            # A large file takes a while, in which the loop goes on.
            loaded: Loaded = await self._aside(self._read, self.config)
        except ConfigError as error:
            named = (problem.file for problem in error.problems)
            self.last_read = LastRead(self.last_read.sources, frozenset((*error.files, *named)))
            told = ", ".join(self.config.sources.roots) or self.config.source
            raise ReloadError("\n".join(report(error.problems, told)), error.problems) from error
        self.last_read = LastRead(loaded.config.sources)
        return loaded

    async def _with_certificates(self) -> Loaded:
        try:
            loaded: Loaded = await self._aside(self._again, self.config.sources)
        except ConfigError as error:
            told = ", ".join(self.config.sources.roots) or self.config.source
            raise ReloadError("\n".join(report(error.problems, told)), error.problems) from error
        listeners = {each.name: each.tls for each in loaded.config.listeners}
        config = replace(
            self.config,
            listeners=tuple(
                replace(each, tls=listeners.get(each.name, each.tls)) for each in self.config.listeners
            ),
            upstreams={
                name: replace(each, tls=loaded.config.upstreams[name].tls)
                for name, each in self.config.upstreams.items()
            },
        )
        soon = tuple(warning for warning in loaded.warnings if warning.message.startswith("cert: "))
        return Loaded(config, soon)

    async def _kept(self, entry: Entry) -> Loaded:
        try:
            loaded: Loaded = await self._aside(self._again, entry.sources)
        except ConfigError as error:
            told = f"version {entry.version}"
            raise ReloadError("\n".join(report(error.problems, told)), error.problems) from error
        # What stands beside the configuration is as it is now, not as it was then.
        then, today = entry.sources.attached, loaded.config.sources.attached
        changed = [name for name, digest in today.items() if then.get(name, digest) != digest]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            self._tell(
                f"fastgate: warning: other than in version {entry.version}: {', '.join(changed[:3])}{more}; "
                "such files are not kept, and count as they are now"
            )
        return loaded

    # -- keeping it

    def _begin(self) -> Entry:
        config = self.config
        entries = self._history.entries()
        last = entries[-1] if entries else None
        if last is not None and config.sources.known and last.digest == config.sources.digest:
            return last
        if last is not None and last.cause == "rollback":
            self._tell(
                f"fastgate: warning: version {last.version}, a rollback to {last.of}, was in force before; "
                "the files say something else, and count"
            )
        text = summary(last.sources, config.sources) if last is not None else ""
        return self._history.add(lambda version: _entry(version, config.sources, "start", 0, text))

    def _keep(self, sources: Sources, cause: Cause, of: int) -> Entry:
        self._history.size = self.config.server.history
        text = summary(self._current.sources, sources)
        return self._history.add(lambda version: _entry(version, sources, cause, of, text))


def _entry(version: int, sources: Sources, cause: Cause, of: int, text: str) -> Entry:
    return Entry(version=version, time=now(), cause=cause, of=of, changes=text, sources=sources)
