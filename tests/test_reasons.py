"""The table of reason codes: complete, stable in form, and docs/reasons.md is made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.gateway import ROOT

from fastgate._core import REASONS, ReasonInfo

# RFC 9209 2.3: the error types that Proxy-Status may have.
PROXY_ERRORS = {
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
}
CODES = [reason for reason in REASONS if reason.code != "none"]


@pytest.mark.parametrize("reason", CODES, ids=lambda reason: str(reason.code))
def test_each_code_is_whole(reason: ReasonInfo) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", reason.code)
    assert reason.source in ("downstream", "upstream", "gateway")
    assert reason.status == 0 or 200 <= reason.status <= 599
    assert reason.proxy_error == "" or reason.proxy_error in PROXY_ERRORS
    for text in (reason.cause, reason.remedy):
        assert len(text) > 5, "a code without cause or remedy"
        assert text.endswith((".", "?"))
        assert not text.startswith("As above"), "each code stands alone where it is shown"


def test_codes_are_unique() -> None:
    assert len({reason.code for reason in REASONS}) == len(REASONS)


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    """`make docs` writes it."""
    page = tmp_path / "reasons.md"
    subprocess.run([sys.executable, "-m", "tools.reasons_page", str(page)], cwd=ROOT, check=True, timeout=30)
    assert (ROOT / "docs" / "reasons.md").read_text() == page.read_text()
    for reason in CODES:
        assert page.read_text().count(f"| `{reason.code}` |") == 1
