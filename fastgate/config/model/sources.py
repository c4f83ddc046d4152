"""The files that a configuration came from."""

import hashlib

import msgspec
from msgspec import Struct


class Sources(Struct, frozen=True, kw_only=True):
    """All that is needed to read a configuration again, here or in another process, or to notice a change.

    roots: the files that were named, in their order. texts: what they and all that they include say, by
    name. patterns: (folder, pattern) of each `include` that has a wildcard. directory: what relative names
    are relative to. attached: the digest (SHA-256) of each other file that was read, by path, "" where there
    was none: what such files say is not kept, since it may be a secret.
    """

    roots: tuple[str, ...] = ()
    texts: dict[str, str] = {}
    patterns: tuple[tuple[str, str], ...] = ()
    directory: str = ""
    attached: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Sources({', '.join(self.roots)})"  # what the files say may be a secret

    @property
    def digest(self) -> str:
        """Of what the files say, the attached ones too: equal for equal configurations."""
        return self._hash(sorted(self.attached.items()))

    @property
    def text_digest(self) -> str:
        """Of what the configuration's own files say."""
        return self._hash([])

    def _hash(self, attached: list[tuple[str, str]]) -> str:
        said = msgspec.json.encode((self.roots, sorted(self.texts.items()), attached))
        return hashlib.sha256(said).hexdigest()
