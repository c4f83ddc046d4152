"""The files that a configuration came from."""

import hashlib
import os

import msgspec
from msgspec import Struct
from msgspec.structs import replace


class Sources(Struct, frozen=True, kw_only=True):
    """All that is needed to read a configuration again, here or in another process, or to notice a change.

    roots: the files that were named, in their order. texts: what they and all that they include say, by
    name. patterns: (folder, pattern) of each `include` that has a wildcard. directory: what relative names
    are relative to. tables: name, and JSON, of what a program gave in place of files. attached: the digest
    (SHA-256) of each other file that was read, by path, "" where there was none: what such files say is not
    kept, since it may be a secret.
    """

    roots: tuple[str, ...] = ()
    texts: dict[str, str] = {}
    tables: tuple[str, str] | None = None
    patterns: tuple[tuple[str, str], ...] = ()
    directory: str = ""
    attached: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Sources({', '.join(self.roots)})"  # what the files say may be a secret

    @property
    def known(self) -> bool:
        """Whether it can be read again."""
        return bool(self.roots) or self.tables is not None

    @property
    def digest(self) -> str:
        """Of what the files say, the attached ones too: equal for equal configurations."""
        return self._hash(True)

    @property
    def text_digest(self) -> str:
        """Of what the configuration's own files say."""
        return self._hash(False)

    def absolute(self) -> "Sources":
        """The same, whatever the current directory is."""
        return replace(
            self,
            roots=tuple(map(self._placed, self.roots)),
            texts={self._placed(name): text for name, text in self.texts.items()},
            patterns=tuple((self._placed(name), pattern) for name, pattern in self.patterns),
            attached={self._placed(name): digest for name, digest in self.attached.items()},
        )

    def _placed(self, name: str) -> str:
        return os.path.normpath(os.path.join(self.directory, name))

    def _hash(self, with_attached: bool) -> str:
        placed = self.absolute()
        attached = sorted(placed.attached.items()) if with_attached else []
        said = msgspec.json.encode((placed.roots, self.tables, sorted(placed.texts.items()), attached))
        return hashlib.sha256(said).hexdigest()
