"""The modules in which plugins are written, loaded once for each version of their source.

A changed source gives a new module beside the old one: whoever holds classes of that goes on with them.
Python's own import would not do: it keeps the first module for ever, and its cache of bytecode tells versions
apart by the second in which they were written.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from fastgate.config.problems import quote
from fastgate.config.units import BadValue

MAX_BYTES: Final = 4 * 1024 * 1024
_PREFIX: Final = "fastgate_plugin_"


class _Version(NamedTuple):
    module: ModuleType
    folder: str  # of the configuration that named it


# By name of the module and digest of its source. Versions are not dropped: a failed reload may be followed by
# one to the version that still runs. Several gateways of a process may load at a time.
_versions: Final[dict[tuple[str, str], _Version]] = {}
_lock: Final = threading.RLock()


def module_of_file(name: str, folder: Path) -> tuple[ModuleType, str]:
    """The module of a file, relative to ``folder``, and the digest of its source. Raises BadValue."""
    path = (folder / name).resolve()
    source = _read(path, name)
    digest = hashlib.sha256(source).hexdigest()
    # In sys.modules under a name of its own: what looks up a class's module finds the right version.
    stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    unique = hashlib.sha256(f"{path}\0{digest}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    module_name = f"{_PREFIX}{stem}_{unique}"
    with _lock:
        version = _versions.get((module_name, digest))
        if version is None:
            _look_in(folder)
            spec = spec_from_file_location(module_name, path)
            assert spec is not None
            version = _Version(_execute(spec, source, name), str(folder))
            _versions[module_name, digest] = version
    return version.module, digest


def module_of_name(name: str, folder: Path) -> tuple[ModuleType, str]:
    """The module ``name``, and the digest of its source ("" where it has none). Raises BadValue."""
    with _lock:
        _look_in(folder)
        loaded = sys.modules.get(name)
        if loaded is not None and loaded.__spec__ is None:
            return loaded, ""  # a script that is run
        importlib.invalidate_caches()
        try:
            spec = find_spec(name)  # this imports the packages that it stands in
        except (Exception, SystemExit) as error:
            raise _failure(name, error, "") from error
        if spec is None:
            raise BadValue(
                f"no module is named {quote(name)}",
                "it is looked up among installed packages and beside the configuration",
            )
        _check_not_hidden(name, spec, folder)
        if not isinstance(spec.loader, SourceFileLoader) or spec.origin is None:
            return imported(name), ""
        source = _read(Path(spec.origin), spec.origin)
        digest = hashlib.sha256(source).hexdigest()
        version = _versions.get((name, digest))
        if version is None:
            first = not any(known == name for known, _ in _versions)
            # What a program has imported itself before, it goes on to share with the gateway.
            module = loaded if first and loaded is not None else _execute(spec, source, name)
            version = _versions[name, digest] = _Version(module, str(folder))
        return version.module, digest


class CodePlace(NamedTuple):
    """Where a class is written: in a file or a module, at one version of its source."""

    module: str
    file: str  # "" for a module that is found by its name
    folder: str  # where modules are looked up as well
    digest: str
    name: str


def place_of(cls: type) -> CodePlace | None:
    """None: a class that Python's own import finds."""
    for (module_name, digest), (module, folder) in _versions.items():
        if module_name == cls.__module__ and vars(module).get(cls.__qualname__.partition(".")[0]) is not None:
            found: Any = module
            for part in cls.__qualname__.split("."):
                found = getattr(found, part, None)
            if found is cls:
                file = str(module.__file__) if module_name.startswith(_PREFIX) else ""
                return CodePlace(module_name, file, folder, digest, cls.__qualname__)
    return None


def class_at(place: CodePlace) -> Any:
    """That class, its module loaded if need be. Raises BadValue: its source has changed."""
    if (place.module, place.digest) in _versions:
        found: Any = _versions[place.module, place.digest].module
    else:
        if place.file:
            found, digest = module_of_file(place.file, Path(place.folder))
        else:
            found, digest = module_of_name(place.module, Path(place.folder))
        if digest != place.digest:
            raise BadValue(f"{quote(place.file or place.module)} has changed while it was loaded")
    for part in place.name.split("."):
        found = getattr(found, part)
    return found


def portable(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, as another process can unpickle it: one of a file has that file loaded there first."""
    module = sys.modules.get(function.__module__) if isinstance(function, FunctionType) else None
    if module is None or module.__file__ is None or not module.__name__.startswith(_PREFIX):
        return function
    return _OfFile(function, module.__file__)


class _OfFile:
    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._function, self._file = function, file

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return _function_of, (self._file, self._function.__qualname__)


def _function_of(file: str, name: str) -> Any:
    found: Any = module_of_file(file, Path(file).parent)[0]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _read(path: Path, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            source = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadValue(f"cannot read {quote(name)}: {error.strerror or 'not readable'}") from None
    if len(source) > MAX_BYTES:
        raise BadValue(f"{quote(name)} is larger than {MAX_BYTES // 2**20} MiB")
    return source


def _look_in(folder: Path) -> None:
    """Plugins may import what stands beside them, also later: the folder stays on the path, at its end."""
    text = str(folder.resolve())
    if text not in sys.path:
        sys.path.append(text)


def _check_not_hidden(name: str, spec: ModuleSpec, folder: Path) -> None:
    beside = folder / f"{name}.py"
    if beside.is_file() and (spec.origin is None or not _same_file(beside, spec.origin)):
        found = quote(spec.origin or "built in")
        raise BadValue(
            f"the module {quote(name)} is {found}, not the one beside the configuration", f'use "./{name}.py"'
        )


def _same_file(one: Path, other: str) -> bool:
    return os.path.exists(other) and os.path.samefile(one, other)


def imported(name: str) -> ModuleType:
    """As Python imports it. Raises BadValue."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _failure(name, error, "") from error


def _execute(spec: ModuleSpec, source: bytes, shown: str) -> ModuleType:
    """A new module of ``source``, in sys.modules in place of the one of this name."""
    assert spec.origin is not None
    module = module_from_spec(spec)
    before = sys.modules.get(spec.name)
    sys.modules[spec.name] = module
    try:
        exec(compile(source, spec.origin, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[spec.name]
        else:
            sys.modules[spec.name] = before
        raise _failure(shown, error, spec.origin) from error
    parent, _, child = spec.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


def _failure(name: str, error: BaseException, file: str) -> BadValue:
    """What to tell of code that does not load; ``file``: the plugin's own, whose line is told."""
    if isinstance(error, SyntaxError):
        place = f"{os.path.basename(error.filename or '')}:{error.lineno}"
        return BadValue(f"cannot load {quote(name)}: {error.msg} ({place})")
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if f"{name}.".startswith(f"{error.name}."):
            return BadValue(f"no module is named {quote(error.name)}")
        missing = (
            f"cannot load {quote(name)}: it needs the module {quote(error.name)}, which is not installed"
        )
        return BadValue(missing)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    frame = (own or frames)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    text = " ".join(str(error).split())
    return BadValue(f"cannot load {quote(name)}: {type(error).__name__}: {quote(text, 200)[1:-1]} ({place})")
