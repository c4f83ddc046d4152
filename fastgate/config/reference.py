"""docs/configuration.md, made from the model: every key with its type, default and meaning.

``python -m fastgate.config.reference > docs/configuration.md`` writes it anew; a test checks that it is up to date.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from msgspec import Struct

from fastgate.config import model, reflect
from fastgate.config.forms import FORMS
from fastgate.config.schema import default_json

_INTRODUCTION: Final = """\
# Configuration

<!-- Made by `python -m fastgate.config.reference`; edit fastgate/config/model.py instead. -->

fastgate reads one TOML file: `fastgate run -c gateway.toml`. `fastgate check -c gateway.toml` tells everything that
is wrong with it, each with its line and column, and `--strict` takes warnings for errors. `fastgate schema` prints a
JSON Schema of the file for editors. An unknown key is an error; nothing is templated into the file.

## Forms of values

| form | written | means |
| --- | --- | --- |
| duration | `"250ms"` `"5s"` `"1m"` `"1h"` | a whole number and one unit; at most a year |
| size | `"512B"` `"64KiB"` `"10MiB"` `"1GB"` | KB, MB, GB are powers of 1000; KiB, MiB, GiB of 1024. `"unlimited"` where said |
| rate | `"100/s"` `"10/m"` `"1000/h"` | so many in a second, a minute, an hour |
| bytes per second | `"500B/s"` `"64KiB/s"` | a size for each second |
| network (CIDR) | `"10.0.0.0/8"` `"2001:db8::/32"` | no bits may be set beyond the prefix length; a bare address is a network of one |
| path | `"/orders"` | begins with `/`, has no query, no empty and no dot segments, and is in the normal form to which requests are brought: letters, digits and `-._~` as they are, all else that is no path character as `%XX` in upper case |
| path template | `"/users/{id}"` | a path in which `{name}` stands for a whole segment; at most 16, each name once |
| RE2 expression | `"/v[0-9]+/.*"` | [RE2's syntax](https://github.com/google/re2/wiki/Syntax), over bytes, matched against the whole text |
| condition | `"text"`, `true`, `{ regex = "..." }` | equal, present, matched by the expression |

**Secrets.** A value of `request_headers` and `response_headers` may be `{ env = "NAME" }` (an environment variable) or
`{ file = "path" }` (a file, relative to the configuration, of at most 64 KiB; one newline at its end is dropped). It
must be there, must not be empty, and is never printed.

Fields that belong to a connection or frame a message (`Host`, `Connection`, `Keep-Alive`, `Proxy-Connection`, `TE`,
`Trailer`, `Transfer-Encoding`, `Upgrade`, `Content-Length`, `Expect`, `HTTP2-Settings`) cannot be changed by header
rules: the gateway alone writes them.
"""

# The order in which a reader meets the tables: (heading, struct).
_SECTIONS: Final[tuple[tuple[str, type[Struct]], ...]] = (
    ("[server]", model.Server),
    ("[access_log]", model.AccessLog),
    ("[[listeners]]", model.Listener),
    ("listeners.limits", model.ListenerLimits),
    ("listeners.timeouts", model.ListenerTimeouts),
    ("[upstreams.NAME]", model.Upstream),
    ("upstreams.NAME.endpoints[]", model.Endpoint),
    ("upstreams.NAME.timeouts", model.UpstreamTimeouts),
    ("upstreams.NAME.pool", model.Pool),
    ("upstreams.NAME.limits", model.UpstreamLimits),
    ("[[routes]]", model.Route),
    ("routes.match", model.Match),
    ("routes.redirect", model.Redirect),
    ("routes.respond", model.Respond),
    ("routes.rewrite", model.Rewrite),
    ("routes.request_headers, routes.response_headers", model.HeaderRules),
    ("routes.limits", model.RouteLimits),
    ("routes.timeouts", model.RouteTimeouts),
    ('[plugins.NAME] with use = "rate-limit"', model.RateLimit),
    ('[plugins.NAME] with use = "ip-filter"', model.IpFilter),
)


def reference() -> str:
    """The page, as Markdown."""
    parts = [_INTRODUCTION]
    for heading, cls in _SECTIONS:
        level = "##" if heading.startswith("[") else "###"
        rows = "\n".join(_row(key) for key in reflect.keys_of(cls).values())
        summary = (cls.__doc__ or "").strip()
        parts.append(
            f"\n{level} `{heading}`\n\n{summary}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}\n"
        )
    return "".join(parts)


def _row(key: reflect.Key) -> str:
    return f"| `{key.name}` | {_cell(_type(key.node))} | {_cell(_default(key))} | {_cell(key.description.strip())} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(key: reflect.Key) -> str:
    if key.required:
        return "*required*"
    if key.default_text:
        return key.default_text
    if key.default is None:
        return "none"
    if isinstance(key.default, Struct):
        return "its own defaults"
    if key.default == {}:
        return "`{}`"
    if key.default == "":
        return "none" if isinstance(key.node, reflect.Scalar) else '`""`'
    return f"`{json.dumps(default_json(key))}`"


def _type(node: reflect.Node) -> str:
    match node:
        case reflect.Boolean():
            return "boolean"
        case reflect.Text():
            return "string"
        case reflect.Integer(least, most):
            return f"integer, {least} to {most}" if least is not None else "integer"
        case reflect.Choice(values):
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case reflect.Scalar(form, options):
            label = FORMS[form].label
            least = options.get("minimum")
            label += f", at least {FORMS[form].default(least)}" if least else ""
            label += ', or "unlimited"' if options.get("unlimited") else ""
            return label + (", or secret" if options.get("secret") else "")
        case reflect.ConditionNode():
            return "condition"
        case reflect.Many(item, one_or_many, _):
            inner = _type(item)
            return f"{inner}, or array of these" if one_or_many else f"array of: {inner}"
        case reflect.Mapping(value, names):
            return f"table: {FORMS[names].label} -> {_type(value)}"
        case reflect.Table(_, shorthand):
            return "address or table" if shorthand else "table"
        case reflect.Tagged(_, variants):
            return " or ".join(variants)


if __name__ == "__main__":
    sys.stdout.write(reference())
