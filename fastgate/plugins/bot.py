"""Rules for what clients call themselves (User-Agent). It is what they say: who wants to lie, can."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from fastgate.plugins import Exchange, Host, Plugin, PluginConfig, Response, doc

# Names that tools have by default; whoever runs them seriously changes them, the noise does not.
SCANNERS: Final = (
    r"\bsqlmap\b", r"\bnikto\b", r"\bnmap\b", r"\bmasscan\b", r"\bzgrab\b", r"\bnuclei\b",
    r"\bgobuster\b", r"\bdirbuster\b", r"\bferoxbuster\b", r"\bffuf\b", r"\bfuzz faster u fool\b",
    r"\bw3af\b", r"\bwpscan\b", r"\bacunetix\b",
    r"\bnessus\b", r"\bopenvas\b", r"\bqualys\b", r"\barachni\b", r"\bskipfish\b",
    r"\bwhatweb\b", r"\bjorgee\b", r"\bhydra\b", r"\bhavij\b", r"\bcommix\b", r"\bl9explore\b",
)  # fmt: skip
SCRAPERS: Final = (
    r"\bscrapy\b", r"\bhttrack\b", r"\bwebcopier\b", r"\bteleport\b", r"\bwebzip\b", r"\bsitesucker\b",
    r"\bwebreaper\b", r"\boffline explorer\b", r"\bahrefsbot\b", r"\bsemrushbot\b", r"\bmj12bot\b",
    r"\bdotbot\b", r"\bblexbot\b", r"\bpetalbot\b", r"\bbytespider\b", r"\bgptbot\b", r"\bccbot\b",
    r"\bclaudebot\b", r"\bperplexitybot\b", r"\bamazonbot\b", r"\bdataforseobot\b",
)  # fmt: skip


class Bot(Plugin):
    """Refuses clients by their User-Agent."""

    class Config(PluginConfig):
        deny: Annotated[
            tuple[str, ...],
            doc("What is refused: RE2 expressions, found anywhere, in any case.", "regex", one_or_many=True),
        ] = ()
        allow: Annotated[
            tuple[str, ...],
            doc("What passes although `deny` or a list names it.", "regex", one_or_many=True),
        ] = ()
        scanners: Annotated[bool, doc("Refuse the default names of common vulnerability scanners.")] = False
        scrapers: Annotated[bool, doc("Refuse common scrapers and bulk crawlers.")] = False
        empty: Annotated[Literal["pass", "refuse"], doc("What happens to clients without a User-Agent.")] = (
            "pass"
        )

    config: Config

    def provision(self, host: Host) -> None:
        config = self.config
        lists = (SCANNERS if config.scanners else ()) + (SCRAPERS if config.scrapers else ())
        self._denied = (*config.deny, *lists)
        self._deny = _set(self._denied)
        self._allow = _set(config.allow)

    def on_request(self, exchange: Exchange) -> Response | None:
        agents = exchange.request.headers.get_all("user-agent")
        if not any(agents):
            if self.config.empty == "refuse":
                return exchange.refuse(403, "bot-refused", "no User-Agent")
            return None
        # Of several fields each is looked at, since the service may read any; none of them excuses another.
        for agent in agents:
            found = [] if self._deny is None else self._deny.Match(agent)
            if found and not (self._allow is not None and self._allow.Match(agent)):
                return exchange.refuse(403, "bot-refused", f"User-Agent matches {self._denied[found[0]]}")
        return None


def _set(patterns: Iterable[str]) -> Any:
    """All of them as one automaton, linear in the text (RE2); None of none."""
    import re2

    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    found, count = re2.Set.SearchSet(options), 0
    for pattern in patterns:
        found.Add(pattern)
        count += 1
    if count == 0:
        return None
    found.Compile()
    return found
