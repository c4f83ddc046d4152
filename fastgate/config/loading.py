"""Reading a configuration: files to text to document to model, each step with its own errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from fastgate.config.attached import at_root, attached_of
from fastgate.config.decode import BAD
from fastgate.config.decode_plugin import ConfigDecoder
from fastgate.config.document import Document
from fastgate.config.files import MAX_FILE_BYTES, Files, Kept, OnDisk
from fastgate.config.including import parse_document, read_document, tables_document
from fastgate.config.model import Config, Sources
from fastgate.config.plugin_types import PluginSource
from fastgate.config.problems import ConfigError, Problem, Problems
from fastgate.config.rules import check_rules
from fastgate.config.spaces import Space, join

__all__ = ["MAX_FILE_BYTES", "Loaded", "load", "load_sources", "load_tables", "loads"]


class Loaded(NamedTuple):
    """A configuration that can be used, and what is doubtful in it."""

    config: Config
    warnings: tuple[Problem, ...]


class _Options(NamedTuple):
    strict: bool
    read_endpoints: bool
    plugins: Mapping[str, type[Any]]
    environ: Mapping[str, str] | None = None


def load(
    path: str,
    *more: str,
    strict: bool = False,
    read_endpoints: bool = False,
    plugins: Mapping[str, type[Any]] = {},  # not changed
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Reads the TOML file ``path``, and what it includes. Raises ConfigError with every problem.

    ``more``: further files, each a gateway of its own beside the first (``spaces``). ``strict``: warnings
    count as errors. ``read_endpoints``: endpoints files are read and checked as well. Whoever runs the
    gateway leaves that to its watcher, so that one bad list never keeps all from starting.
    ``plugins``: classes that ``use`` may name besides those of ``PluginSource``. ``environ``: where secrets
    come from, by default the environment.
    """
    return _load((path, *more), OnDisk(), _Options(strict, read_endpoints, plugins, environ))


def load_sources(
    sources: Sources,
    *,
    strict: bool = False,
    plugins: Mapping[str, type[Any]] = {},  # not changed
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """As ``load``, from what an earlier reading found; certificates, keys, plugins' code and lists of
    networks are read from the disk, and environment variables are those of this process."""
    if sources.directory != os.getcwd():
        sources = sources.absolute()
    options = _Options(strict, False, plugins, environ)
    return _load(sources.roots, Kept(sources), options, tables=sources.tables)


def loads(
    text: str,
    name: str = "<string>",
    *,
    strict: bool = False,
    read_endpoints: bool = False,
    plugins: Mapping[str, type[Any]] = {},  # not changed
) -> Loaded:
    """As ``load``, from text; files that it names are relative to the directory of ``name``."""
    document = parse_document(text.removeprefix("\ufeff"), name, OnDisk())
    return _of_one(document, _Options(strict, read_endpoints, plugins))


def load_tables(
    tables: Mapping[str, object],
    name: str = "<tables>",
    *,
    strict: bool = False,
    plugins: Mapping[str, type[Any]] = {},  # not changed
) -> Loaded:
    """As ``loads``, from what the text would be parsed to. Problems tell the key in place of a line."""
    return _of_one(tables_document(_plain(tables), name, OnDisk()), _Options(strict, False, plugins))


def _plain(value: object) -> Any:
    """Tables and arrays as the TOML parser makes them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _load(
    roots: tuple[str, ...],
    files: Files,
    options: _Options,
    tables: tuple[str, str] | None = None,
) -> Loaded:
    if tables is not None:
        document = tables_document(json.loads(tables[1]), tables[0], files)
        return _of_one(document, options)
    if not roots:
        raise ConfigError([Problem("", 0, 0, "it came from no file, and was not kept")])
    if len(roots) == 1:
        return _of_one(read_document(roots[0], files), options)
    spaces: list[Space] = []
    documents: list[Document] = []
    found: list[Problem] = []
    unread: list[str] = []
    for root in roots:
        try:
            document = read_document(root, files)
        except ConfigError as error:
            found += error.problems
            unread += error.files
            continue
        documents.append(document)
        config, problems = _config_of(document, options)
        # What several of them include is wrong once.
        found += [problem for problem in problems if problem not in found]
        if config is not BAD:
            spaces.append(Space(document, config))
    if unread:
        raise ConfigError(found, [*unread, *(file for each in documents for file in each.files())])
    _judge(found, options.strict, *documents)
    config, clashes = join(spaces)
    found += clashes
    return Loaded(config, _judge(found, options.strict, *documents))


def _of_one(document: Document, options: _Options) -> Loaded:
    config, found = _config_of(document, options)
    return Loaded(config, _judge(found, options.strict, document))


def _config_of(document: Document, options: _Options) -> tuple[Any, list[Problem]]:
    """The configuration, or BAD, which has problems."""
    problems = Problems(document.root.name)
    decoder = ConfigDecoder(problems, document, PluginSource(options.plugins), options.environ)
    config = decoder.table(Config, document.tables, ())
    if config is not BAD:
        config = msgspec.structs.replace(config, source=document.root.name)
        config = check_rules(config, document, problems, read_endpoints=options.read_endpoints)
        if not problems.failed(()):
            config = at_root(config, document)
            config = msgspec.structs.replace(config, sources=attached_of(config, document))
    return config, problems.place_in(document)


def _judge(found: list[Problem], strict: bool, *documents: Document) -> tuple[Problem, ...]:
    """The warnings. Raises ConfigError where there is an error."""
    if strict:
        found = [problem._replace(severity="error") for problem in found]
    if any(problem.severity == "error" for problem in found):
        raise ConfigError(found, (file for each in documents for file in each.files()))
    return tuple(found)
