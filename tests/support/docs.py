"""What stands in README.md and docs/*.md: fenced blocks, commands with their output, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.gateway import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    [^\n]*\n|^\n(?=    ))+", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\[]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A piece of a page. kind: the word behind the fence, "indented" for one without fence."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Run:
    """A command line (`$ ...`) and what it prints; "..." stands for anything."""

    block: Block
    command: str
    output: str

    def __str__(self) -> str:
        return f"{self.block}: {self.command[:60]}"

    def matches(self, printed: str) -> bool:
        pattern = "[^\0]*?".join(map(re.escape, self.output.rstrip("\n").split("...")))
        return re.fullmatch(pattern + r"\s*", printed) is not None


def blocks(*kinds: str) -> list[Block]:
    """All blocks of these kinds, of all pages."""
    return [block for page in PAGES for block in _blocks(page) if block.kind in kinds]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
    # The fenced ones blanked out, so that what is indented in them is not found again.
    rest = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    for found in _INDENTED.finditer(rest):
        if re.search(r"\n\s*\Z", rest[: found.start()]) or found.start() == 0:
            code = re.sub(r"^    ", "", found[0], flags=re.MULTILINE)
            yield Block(page, rest.count("\n", 0, found.start()) + 1, "indented", code)


def runs() -> list[Run]:
    """Every `$ command` with what the page says that it prints."""
    found = []
    for block in blocks("console", "indented"):
        command, output = "", ""
        for line in [*block.text.splitlines(keepends=True), "$ "]:
            if line.startswith("$ "):
                if command:
                    found.append(Run(block, command, output))
                command, output = line[2:].strip(), ""
            else:
                output += line
    return found


def commands() -> list[tuple[Block, str]]:
    """Every line of a `sh` block, and of an indented block that begins like one of our commands."""
    found = []
    for block in blocks("sh", "indented"):
        for line in block.text.splitlines():
            line = line.split(" #")[0].strip()
            ours = line.startswith(("fastgate ", "python ", "make ", "pip ", "curl "))
            if line and (block.kind == "sh" or ours):
                found.append((block, line))
    return found


def links(page: Path) -> list[tuple[str, str]]:
    """(path, anchor) of each link that does not leave the repository."""
    text = _FENCE.sub("", page.read_text())
    targets = (link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link))
    return [(path, anchor) for path, _, anchor in (target.partition("#") for target in targets)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = _FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}
