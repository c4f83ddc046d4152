"""``any-of``: several ways to authenticate, of which one is enough."""

from __future__ import annotations

import inspect
from typing import Annotated, Final

from fastgate.plugins import Exchange, Host, Plugin, PluginConfig, Response, doc

# How much a refusal tells, least first: without credentials, not to be decided, wrong, right and not enough.
# An answer of a plugin's own (a redirect to log in) is worth more than hearing that credentials are missing.
_RANKS: Final = {
    "authentication-required": 0,
    "authentication-unavailable": 2,
    "authentication-failed": 3,
    "forbidden": 4,
}
_OWN_ANSWER: Final = 1


class AnyOfConfig(PluginConfig):
    """Lets a request in if one of several plugins does."""

    plugins: Annotated[
        tuple[str, ...],
        doc(
            "Names of plugins that authenticate, in the order in which they are asked. They need not stand "
            "in a route themselves, and their `report_only` is not looked at.",
            "plugin-ref",
            least=1,
        ),
    ]


class AnyOf(Plugin):
    """See docs/plugins/any-of.md."""

    Config = AnyOfConfig
    config: AnyOfConfig

    @classmethod
    def check(cls, config: AnyOfConfig) -> dict[str, str]:
        return {"plugins": "it needs two or more"} if len(config.plugins) < 2 else {}

    def provision(self, host: Host) -> None:
        self._members = [host.plugin(name) for name in self.config.plugins]
        self._key = f"any-of {self.name}"

    async def on_request(self, exchange: Exchange) -> Response | None:
        refusals: list[Response] = []
        passed = False
        before = exchange.consumer
        for member in self._members:
            answer = member.on_request(exchange)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                refusals.append(answer)
                exchange.consumer = before  # whatever it thought of the caller before it refused
            elif exchange.consumer is not None:
                exchange.context[self._key] = member
                return None
            else:
                # It lets nobody in particular in. Another one may know the caller.
                passed = True
        best = max(refusals, key=_rank, default=None)
        # What bad credentials are refused for by one is not let pass by another that does not look at them.
        if best is None or (passed and _rank(best) <= _OWN_ANSWER):
            return None
        if best.status == 401:
            _add_challenges(best, refusals)
        return best

    async def on_response(self, exchange: Exchange, response: Response) -> Response | None:
        """The member that knew the caller may have something to add, such as a session's new cookie."""
        member: Plugin | None = exchange.context.get(self._key)
        answer = None if member is None else member.on_response(exchange, response)
        return await answer if inspect.isawaitable(answer) else answer


def _rank(answer: Response) -> int:
    return _RANKS.get(answer.code, _OWN_ANSWER)


def _add_challenges(best: Response, refusals: list[Response]) -> None:
    """RFC 9110 11.6.1: a 401 may name several ways."""
    named = best.headers.get_all("www-authenticate")
    for refusal in refusals:
        if refusal.status != 401:
            continue
        for challenge in refusal.headers.get_all("www-authenticate"):
            if challenge not in named:
                named.append(challenge)
                best.headers.add("www-authenticate", challenge)
