"""Where an address is, by databases in MaxMind's format: rules by country, continent or operator (AS)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastgate.plugins import Exchange, Host, Plugin, PluginConfig, Response, doc

_CONTINENTS: Final = frozenset({"AF", "AN", "AS", "EU", "NA", "OC", "SA"})
_COUNTRY: Final = re.compile(r"[A-Z]{2}")


class Place(NamedTuple):
    """What is known of an address; "" and 0 where nothing is."""

    country: str = ""
    continent: str = ""
    asn: int = 0
    organisation: str = ""


class GeoIp(Plugin):
    """Looks up the client's address, decides by it and tells the service.

    Needs the extra ``fastgate[geoip]``.
    """

    class Config(PluginConfig):
        database: Annotated[str, doc("Database of countries (or cities), `.mmdb`.", "file")] = ""
        asn_database: Annotated[str, doc("Database of network operators, `.mmdb`.", "file")] = ""
        allow: Annotated[
            tuple[str, ...],
            doc("Countries that may (ISO 3166-1 alpha-2); all others are refused.", one_or_many=True),
        ] = ()
        deny: Annotated[tuple[str, ...], doc("Countries that are refused.", one_or_many=True)] = ()
        allow_continents: Annotated[
            tuple[str, ...], doc("Continents that may: AF AN AS EU NA OC SA.", one_or_many=True)
        ] = ()
        deny_continents: Annotated[
            tuple[str, ...],
            doc("Continents that are refused, but for countries in `allow`.", one_or_many=True),
        ] = ()
        deny_asn: Annotated[
            tuple[int, ...], doc("Numbers of network operators that are refused.", one_or_many=True)
        ] = ()
        unknown: Annotated[
            Literal["auto", "pass", "refuse"],
            doc("Addresses that are in no database. `auto`: refused where there is a list of who may."),
        ] = "auto"
        header: Annotated[
            str, doc("Request header that tells the service the country.", "set-header-name")
        ] = ""
        asn_header: Annotated[
            str, doc("Request header that tells the service the operator's number.", "set-header-name")
        ] = ""
        check_interval: Annotated[
            int, doc("How often to look whether a database was replaced.", "duration")
        ] = 10 * 1_000_000_000

    config: Config

    @classmethod
    def check(cls, config: Config) -> Mapping[str, str]:
        wrong = {}
        if not config.database and not config.asn_database:
            wrong[""] = "needs a database or an asn_database"
        for key in ("allow", "deny"):
            for at, code in enumerate(getattr(config, key)):
                if not _COUNTRY.fullmatch(code):
                    wrong[f"{key}.{at}"] = 'expected a country\'s two capital letters, such as "DE"'
        for key in ("allow_continents", "deny_continents"):
            for at, code in enumerate(getattr(config, key)):
                if code not in _CONTINENTS:
                    wrong[f"{key}.{at}"] = f"expected one of {', '.join(sorted(_CONTINENTS))}"
        for key in ("allow", "deny", "allow_continents", "deny_continents", "header"):
            if getattr(config, key) and not config.database:
                wrong[key] = "needs database"
        for key in ("deny_asn", "asn_header"):
            if getattr(config, key) and not config.asn_database:
                wrong[key] = "needs asn_database"
        if config.check_interval <= 0:
            wrong["check_interval"] = "must be more than 0"
        return wrong

    @classmethod
    def identity_headers(cls, config: Config) -> tuple[str, ...]:
        return tuple(name for name in (config.header, config.asn_header) if name)

    def provision(self, host: Host) -> None:
        config = self.config
        self._host = host
        self._places = _Database(host.folder / config.database) if config.database else None
        self._operators = _Database(host.folder / config.asn_database) if config.asn_database else None
        self._allow = frozenset(config.allow)
        self._deny = frozenset(config.deny)
        self._allow_continents = frozenset(config.allow_continents)
        self._deny_continents = frozenset(config.deny_continents)
        self._deny_asn = frozenset(config.deny_asn)
        lists_who_may = bool(config.allow or config.allow_continents)
        self._refuse_unknown = config.unknown == "refuse" or (config.unknown == "auto" and lists_who_may)
        host.spawn(self._watch(), "watch databases")

    def close(self) -> None:
        # Also after a `provision` that failed half way.
        for database in (getattr(self, "_places", None), getattr(self, "_operators", None)):
            if database is not None:
                database.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.check_interval / 1e9)
            for database in (self._places, self._operators):
                if database is None:
                    continue
                try:
                    if await self._host.in_thread(database.refresh):
                        self._host.log.info("%s was read anew", database.path.name)
                except Exception as error:  # noqa: BLE001 - the former stays in force, whatever is wrong
                    self._host.log.warning("%s stays as it was: %s", database.path.name, error)
                    self._host.count("reload_failures")

    def on_request(self, exchange: Exchange) -> Response | None:
        place = self.locate(exchange.client_ip)
        exchange.context["geoip"] = place
        why = self._refusal(place)
        if why:
            return exchange.refuse(403, "country-refused", why)
        headers = exchange.request.headers
        if self.config.header and place.country:
            headers[self.config.header] = place.country
        if self.config.asn_header and place.asn:
            headers[self.config.asn_header] = str(place.asn)
        return None

    def locate(self, address: str) -> Place:
        """What the databases say of an address; "" is in none."""
        record = self._places.get(address) if self._places and address else {}
        operator = self._operators.get(address) if self._operators and address else {}
        country = record.get("country") or record.get("registered_country")
        continent = record.get("continent")
        asn = operator.get("autonomous_system_number")
        return Place(
            _code(country, "iso_code"),
            _code(continent, "code"),
            asn if isinstance(asn, int) else 0,
            str(operator.get("autonomous_system_organization", "")),
        )

    def _refusal(self, place: Place) -> str:
        if place.asn and place.asn in self._deny_asn:
            return f"operator AS{place.asn} is refused"
        if self._places is None:
            return "unknown operator" if not place.asn and self._refuse_unknown else ""
        if not place.country and not place.continent:
            return "unknown address" if self._refuse_unknown else ""
        if place.country in self._deny:
            return f"country {place.country} is refused"
        if place.country in self._allow:
            return ""
        if place.continent in self._deny_continents:
            return f"continent {place.continent} is refused"
        if (self._allow or self._allow_continents) and place.continent not in self._allow_continents:
            return f"country {place.country or 'unknown'} is not among those that may"
        return ""


class _Database:
    """One file, opened anew when another takes its place. Raises OSError or InvalidDatabaseError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader, self._version = self._open()

    def _open(self) -> tuple[Any, tuple[int, int, int]]:
        import maxminddb

        stat = self.path.stat()
        # Mapped into memory, so all workers share it: it must be replaced by a rename, not be written into.
        return maxminddb.open_database(self.path), (stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def refresh(self) -> bool:
        stat = self.path.stat()
        if (stat.st_ino, stat.st_size, stat.st_mtime_ns) == self._version:
            return False
        # The former reader is closed with its last reference: the loop's thread may be inside it.
        self._reader, self._version = self._open()
        return True

    def get(self, address: str) -> Mapping[str, Any]:
        if ":" in address and self._reader.metadata().ip_version == 4:
            return {}
        record = self._reader.get(address)
        return record if isinstance(record, dict) else {}

    def close(self) -> None:
        self._reader.close()


def _code(value: Any, key: str) -> str:
    """A code of two letters: from MaxMind's table, or where other makers put it plainly."""
    code = value.get(key) if isinstance(value, dict) else value
    return code if isinstance(code, str) and _COUNTRY.fullmatch(code) else ""
