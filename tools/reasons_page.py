"""Writes docs/reasons.md from the core's table of reason codes: `python -m tools.reasons_page FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from fastgate._core import REASONS, ReasonInfo

HEAD = """\
# Reason codes

Every answer that the gateway makes itself, and every exchange that it ends, has one of these codes. They are
stable: a code keeps its name and meaning. The same code stands

- in the body, as `code` of the problem document (RFC 9457; plain text for a client whose `Accept` takes that
  and no JSON), beside the `request_id` that the log line has;
- in `Proxy-Status` (RFC 9209), as `details`, beside the error type of that RFC;
- in the access log, as `reason`; its `detail` often says more (the rule, the system's error);
- in the counters.

```console
$ curl -i http://127.0.0.1:8080/broken
HTTP/1.1 502 Bad Gateway
Content-Type: application/problem+json
Cache-Control: no-store
X-Request-ID: ...
Proxy-Status: fastgate; error=connection_refused; details="connect-refused"
...
{"type":"about:blank","title":"Bad Gateway","status":502,...,"code":"connect-refused","request_id":"..."}
```

An answer that an upstream gave is passed on as it is, whatever its status, and has no reason code.

*again*: whether the same request may succeed if it is sent once more. Status -: the route decides it, or
nothing can be sent any more. 499 is seen by the log alone. When an answer is already under way its status
stands; the connection is then cut, so that the client cannot take the part for the whole.

<!-- Below: made from fastgate/core/reasons.pyx by `make docs`. -->
"""

SECTIONS = (
    ("downstream", "The client has to act"),
    ("gateway", "The gateway's own decisions"),
    ("upstream", "The service has to act"),
)


def page() -> str:
    """The whole page. ValueError for a code that belongs to no section."""
    parts = [HEAD]
    listed = 0
    for source, title in SECTIONS:
        rows = [reason for reason in REASONS if reason.source == source]
        listed += len(rows)
        parts += [
            f"\n## {title}\n\n",
            "| code | status | Proxy-Status error | again | cause | what to do |\n",
            "|---|---|---|---|---|---|\n",
            *map(_row, rows),
        ]
    # "none" stands for no reason at all.
    if listed != len(REASONS) - 1:
        raise ValueError("a reason code has a source that the page does not know")
    return "".join(parts)


def _row(reason: ReasonInfo) -> str:
    cells = (
        f"`{reason.code}`",
        str(reason.status or "-"),
        f"`{reason.proxy_error}`" if reason.proxy_error else "-",
        "yes" if reason.retryable else "no",
        reason.cause,
        reason.remedy,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
