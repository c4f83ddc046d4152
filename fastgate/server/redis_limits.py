"""The limits of a worker that Redis decides, and their connections: one set for each place."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fastgate import _core
from fastgate.config import Config, model

if TYPE_CHECKING:
    from fastgate.limits.limiter import RedisLimiter
    from fastgate.limits.places import Place

__all__ = ["RedisLimits", "redis_limits_of"]


def redis_limits_of(config: Config) -> list[model.RateLimit]:
    """Those that Redis decides."""
    limits = (each for each in config.plugins.values() if isinstance(each, model.RateLimit))
    return [each for each in limits if each.scope == "redis"]


class RedisLimits:
    """What is equal in the next configuration lives on; ``keep`` ends the rest."""

    def __init__(self) -> None:
        self._places: dict[model.RedisPlace, Place] = {}
        self._filters: dict[model.RateLimit, tuple[_core.PendingFilter, RedisLimiter]] = {}

    def filter_for(self, config: model.RateLimit) -> _core.PendingFilter:
        from fastgate.limits.limiter import RedisLimiter  # takes hiredis along, for those who need it
        from fastgate.limits.places import place_of
        from fastgate.limits.scripts import QUOTA, SLIDING_WINDOW, TOKEN_BUCKET

        if config not in self._filters:
            where = config.redis
            assert where is not None
            if where not in self._places:
                self._places[where] = place_of(where, (TOKEN_BUCKET, SLIDING_WINDOW, QUOTA))
            limiter = RedisLimiter(config, self._places[where])
            # The same for all replicas; who could choose keys to collide would need to find them in 128 bits.
            seed = hashlib.blake2b(f"{where.prefix}{config.name}".encode(), digest_size=16).digest()
            self._filters[config] = (
                _core.PendingFilter(
                    config.name,
                    _core.RequestKey(config.key, seed=seed, ipv6_prefix=config.ipv6_prefix),
                    limiter.begin,
                    cost=config.cost,
                    per_route=config.per == "route",
                    charge=limiter.charge,
                    cost_header=config.cost_header,
                ),
                limiter,
            )
        return self._filters[config][0]

    def counts(self) -> dict[str, dict[str, int]]:
        return {config.name: dict(limiter.counts) for config, (_, limiter) in self._filters.items()}

    async def keep(self, configs: list[model.RateLimit]) -> None:
        """Ends what none of these needs."""
        self._filters = {config: self._filters[config] for config in configs if config in self._filters}
        needed = {config.redis for config in self._filters}
        for where in set(self._places) - needed:
            if where is not None:
                await self._places.pop(where).close()
