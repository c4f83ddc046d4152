"""A plugin that tells the service, in X-Who, which consumer the plugins before it have found: as JSON."""

from __future__ import annotations

import json

from fastgate.plugins import Exchange, Plugin


class Who(Plugin):
    def on_request(self, exchange: Exchange) -> None:
        found = exchange.consumer
        exchange.request.headers["x-who"] = json.dumps(
            found
            and {
                "name": found.name,
                "plan": found.plan,
                "groups": sorted(found.groups),
                "scopes": sorted(found.scopes),
                "source": found.source,
            }
        )
