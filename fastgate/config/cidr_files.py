"""Files of networks, one a line, as ip-filters name them."""

from __future__ import annotations

import os
from typing import Final

from fastgate.config.addresses import parse_cidr
from fastgate.config.document import Document
from fastgate.config.problems import Path, Problem, Problems, quote
from fastgate.config.units import BadValue

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_TOLD: Final = 20  # a file of another kind has an error in each line


def read_cidr_file(document: Document, name: str, path: Path, problems: Problems) -> tuple[str, ...]:
    """The networks of ``name`` in canonical form; its errors are told with its own lines."""
    label = path[-1]
    try:
        data = document.read(name, path, MAX_BYTES + 1)
    except OSError as error:
        problems.error(path, f"{label}: cannot read {quote(name)}: {error.strerror or 'not readable'}")
        return ()
    if len(data) > MAX_BYTES:
        problems.error(path, f"{label}: {quote(name)} is larger than {MAX_BYTES // 2**20} MiB")
        return ()
    networks = []
    told = 0
    # Latin-1 reads any byte, so that a wrong one is told with its line like any other error.
    for number, line in enumerate(data.decode("latin-1").split("\n"), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            networks.append(parse_cidr(text, {}))
        except BadValue as bad:
            told += 1
            if told <= MAX_TOLD:
                column = len(line) - len(line.lstrip()) + 1
                shown = (
                    os.path.join(document.folder(path), name) if str(document.folder(path)) != "." else name
                )
                problems.elsewhere(path, Problem(shown, number, column, str(bad), bad.hint))
    if told > MAX_TOLD:
        problems.error(path, f"{label}: {quote(name)} has {told - MAX_TOLD} more errors")
    return tuple(networks)
