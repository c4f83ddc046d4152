"""The plugin mtls: whose certificate a trusted proxy has seen, who is let in, and what is not believed."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import StartGateway
from cryptography.x509 import DNSName, RFC822Name, UniformResourceIdentifier
from support.certificates import Issued, issue
from support.gatekeepers import (
    WHO,
    ask,
    assert_refused,
    assert_refused_because,
    problems_of,
    seen,
    wait_for,
    who,
)
from support.gateway import Gateway, config
from support.peers import nginx
from support.upstream import Upstream, free_port

CA = issue("CN=Our CA", ca=True)
BETWEEN = issue("CN=Between", by=CA, ca=True)
OTHER_CA = issue("CN=Our CA", ca=True)

ORDERS = issue("CN=orders,O=Example\\, Inc.", DNSName("orders.svc.example"), by=CA)
SPIFFE = issue("CN=x", UniformResourceIdentifier("spiffe://prod/ns/shop/sa/cart"), by=CA)
MAIL = issue("CN=y", RFC822Name("ann@example.com"), by=CA)
PLAIN = issue("CN=plain", by=CA)
BELOW = issue("CN=below", DNSName("below.svc.example"), by=BETWEEN)
STRANGER = issue("CN=stranger", DNSName("stranger.example"), by=CA)
FORGED = issue("CN=orders,O=Example\\, Inc.", DNSName("orders.svc.example"), by=OTHER_CA)
SELF_SIGNED = issue("CN=orders,O=Example\\, Inc.", DNSName("orders.svc.example"))
EXPIRED = issue("CN=orders,O=Example\\, Inc.", DNSName("orders.svc.example"), by=CA, days=(-30, -1))
EARLY = issue("CN=orders,O=Example\\, Inc.", DNSName("orders.svc.example"), by=CA, days=(1, 30))
SERVER = issue("CN=a", DNSName("a.svc.example"), by=CA, server=True)
DEEP = issue("CN=deep", DNSName("a.b.svc.example"), by=CA)
WILD = issue("CN=wild", DNSName("*.svc.example"), by=CA)
NO_CA = issue("CN=z", DNSName("z.svc.example"), by=PLAIN)

CLIENTS = [
    {
        "fingerprints": [":".join(PLAIN.fingerprint.upper()[at : at + 2] for at in range(0, 64, 2))],
        "consumer": "plain",
    },
    {
        "subjects": ["CN=orders,O=Example\\, Inc."],
        "sans": ["dns:orders.svc.example"],
        "plan": "gold",
        "groups": ["a"],
    },
    {"sans": ["uri:spiffe://prod/ns/shop/*"], "scopes": ["read"]},
    {"sans": ["email:ann@example.com"], "consumer": "ann"},
    {"sans": ["dns:*.svc.example"]},
]


def nginx_header(issued: Issued) -> str:
    return f"X-SSL-Client-Cert: {issued.escaped}"


def envoy_header(issued: Issued, more: str = "") -> str:
    return f'X-Forwarded-Client-Cert: By=spiffe://x;Hash={issued.fingerprint};Cert="{issued.escaped}"{more}'


def rfc_header(issued: Issued) -> str:
    return f"Client-Cert: :{base64.b64encode(issued.der).decode()}:"


FORMS: dict[str, Callable[[Issued], str]] = {"nginx": nginx_header, "envoy": envoy_header, "rfc": rfc_header}


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_text(CA.pem)
    return file


@pytest.fixture(scope="module")
def module_gateway(module_upstream: Upstream, ca_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def mtls(header: str, **more: Any) -> dict[str, Any]:
        return {"use": "mtls", "header": header, "clients": CLIENTS, **more}

    names = ("nginx", "envoy", "rfc", "fields", "unverified", "forward", "report")
    tables = config(
        module_upstream.address,
        listeners=[
            {"name": "behind", "bind": "127.0.0.1:0", "trusted_proxies": ["127.0.0.1/32"]},
            {"name": "open", "bind": "127.0.0.1:0"},
        ],
        routes=[
            {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": [name, "who"]}
            for name in names
        ],
        plugins={
            "nginx": mtls("x-ssl-client-cert", ca_file=str(ca_file), consumer_header="X-Consumer"),
            "envoy": mtls("x-forwarded-client-cert", ca_file=str(ca_file)),
            "rfc": mtls("client-cert", ca_file=str(ca_file)),
            "fields": mtls("x-forwarded-client-cert", trust_fields=True),
            "unverified": mtls("x-ssl-client-cert"),
            "forward": mtls("x-ssl-client-cert", forward=True),
            "report": mtls("x-ssl-client-cert", report_only=True, consumer_header="X-Consumer"),
            "who": WHO,
        },
    )  # fmt: skip
    with Gateway(tables, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("issued", "consumer"),
    [
        (PLAIN, {"name": "plain"}),
        (ORDERS, {"name": "orders.svc.example", "plan": "gold", "groups": ["a"]}),
        (SPIFFE, {"name": "spiffe://prod/ns/shop/sa/cart", "scopes": ["read"]}),
        (MAIL, {"name": "ann"}),
    ],
    ids=["fingerprint", "subject", "uri", "email"],
)
def test_a_certificate_says_who_the_caller_is(
    gateway: Gateway, form: str, issued: Issued, consumer: dict[str, Any]
) -> None:
    response = ask(gateway, f"/{form}", FORMS[form](issued))
    assert who(response) == {"plan": "", "groups": [], "scopes": [], "source": form, **consumer}
    assert not seen(response).keys() & {"client-cert", "x-ssl-client-cert", "x-forwarded-client-cert"}


def test_the_service_is_told(gateway: Gateway) -> None:
    response = ask(gateway, "/nginx", nginx_header(ORDERS), "X-Consumer: admin", "x_consumer: admin")
    assert seen(response)["x-consumer"] == ["orders.svc.example"]
    assert "x_consumer" not in seen(response)


def test_what_stands_between_a_certificate_and_the_ca(gateway: Gateway) -> None:
    chain = f'Chain="{BELOW.escaped}{BETWEEN.escaped}"'
    assert who(ask(gateway, "/envoy", envoy_header(BELOW, f";{chain}")))["name"] == "below.svc.example"
    line = f"Client-Cert-Chain: :{base64.b64encode(BETWEEN.der).decode()}:"
    assert who(ask(gateway, "/rfc", rfc_header(BELOW), line))["name"] == "below.svc.example"
    assert_refused(ask(gateway, "/rfc", rfc_header(BELOW)), 401, FAILED)


def test_without_a_ca_the_proxy_alone_has_verified(gateway: Gateway) -> None:
    assert who(ask(gateway, "/unverified", nginx_header(FORGED)))["name"] == "orders.svc.example"


def test_the_header_may_be_forwarded(gateway: Gateway) -> None:
    fields = seen(ask(gateway, "/forward", nginx_header(ORDERS), envoy_header(PLAIN), "X_SSL_Client_Cert: x"))
    assert fields["x-ssl-client-cert"] == [ORDERS.escaped]
    assert not fields.keys() & {"x-forwarded-client-cert", "x_ssl_client_cert"}


def test_fields_without_a_certificate_are_believed_where_that_is_wished(gateway: Gateway) -> None:
    """As Istio sends them."""
    line = (
        f'X-Forwarded-Client-Cert: By=spiffe://prod/x;Hash={"a" * 64};Subject="";'
        "URI=spiffe://prod/ns/shop/sa/cart"
    )
    assert who(ask(gateway, "/fields", line))["name"] == "spiffe://prod/ns/shop/sa/cart"
    subject = 'Subject="CN=orders,O=Example\\\\, Inc.";DNS=orders.svc.example'
    assert (
        who(ask(gateway, "/fields", f"X-Forwarded-Client-Cert: Hash={'a' * 64};{subject}"))["plan"] == "gold"
    )
    assert_refused(ask(gateway, "/envoy", line), 401, FAILED)


REQUIRED, FAILED, FORBIDDEN = "authentication-required", "authentication-failed", "forbidden"
ATTACKS: list[tuple[str, str, list[str], str, str]] = [
    ("nothing", "/nginx", [], REQUIRED, "no client certificate"),
    (
        "empty, as nginx sends it without one",
        "/nginx",
        ["X-SSL-Client-Cert:"],
        REQUIRED,
        "no client certificate",
    ),
    ("another proxy's form", "/nginx", [envoy_header(ORDERS)], REQUIRED, "no client certificate"),
    ("underscores", "/nginx", [nginx_header(ORDERS).replace("-", "_", 3)], REQUIRED, "no client certificate"),
    ("stranger of our CA", "/nginx", [nginx_header(STRANGER)], FORBIDDEN, "no client"),
    ("label below the wildcard", "/nginx", [nginx_header(DEEP)], FORBIDDEN, "no client"),
    ("wildcard in the certificate", "/nginx", [nginx_header(WILD)], FORBIDDEN, "no client"),
    ("same names of another CA", "/nginx", [nginx_header(FORGED)], FAILED, "does not lead to a CA"),
    ("signed by itself", "/nginx", [nginx_header(SELF_SIGNED)], FAILED, "does not lead to a CA"),
    ("signed by no CA", "/nginx", [nginx_header(NO_CA)], FAILED, "does not lead to a CA"),
    ("of a server", "/nginx", [nginx_header(SERVER)], FAILED, "does not lead to a CA"),
    ("expired", "/nginx", [nginx_header(EXPIRED)], FAILED, "has expired"),
    ("not valid yet", "/nginx", [nginx_header(EARLY)], FAILED, "not valid yet"),
    ("expired, without a CA", "/unverified", [nginx_header(EXPIRED)], FAILED, "has expired"),
    ("the header twice", "/nginx", [nginx_header(ORDERS), nginx_header(PLAIN)], FAILED, "2 times"),
    ("two certificates", "/nginx", [nginx_header(ORDERS) + PLAIN.escaped], FAILED, "no certificate in URL"),
    (
        "a private key",
        "/nginx",
        ["X-SSL-Client-Cert: -----BEGIN%20PRIVATE%20KEY-----"],
        FAILED,
        "no certificate",
    ),
    ("garbage", "/nginx", ["X-SSL-Client-Cert: %ff%00"], FAILED, "no certificate in URL"),
    ("cut short", "/nginx", [nginx_header(ORDERS)[:-200]], FAILED, "no certificate in URL"),
    (
        "two elements",
        "/envoy",
        [envoy_header(ORDERS, f",Hash={PLAIN.fingerprint}")],
        FAILED,
        "more than one element",
    ),
    (
        "two certificates of Envoy",
        "/envoy",
        [envoy_header(ORDERS, f';Cert="{PLAIN.escaped}"')],
        FAILED,
        "twice",
    ),
    ("in another case", "/envoy", [envoy_header(ORDERS, f';cert="{PLAIN.escaped}"')], FAILED, "twice"),
    ("another hash", "/envoy", [envoy_header(ORDERS).replace("Hash=", "Hash=0")], FAILED, "not that of Cert"),
    ("hash alone", "/envoy", [f"X-Forwarded-Client-Cert: Hash={PLAIN.fingerprint}"], FAILED, "has no Cert"),
    ("URI alone", "/envoy", ["X-Forwarded-Client-Cert: URI=spiffe://prod/ns/shop/x"], FAILED, "has no Cert"),
    (
        "URI without hash",
        "/fields",
        ["X-Forwarded-Client-Cert: URI=spiffe://prod/ns/shop/x"],
        FAILED,
        "no SHA-256",
    ),
    (
        "climbs in the URI",
        "/fields",
        [f"X-Forwarded-Client-Cert: Hash={'a' * 64};URI=spiffe://prod/ns/shop/../bank"],
        FORBIDDEN,
        "no client",
    ),
    (
        "URI of a quoted subject",
        "/fields",
        [f'X-Forwarded-Client-Cert: Hash={"a" * 64};Subject="CN=x;URI=spiffe://prod/ns/shop/x"'],
        FORBIDDEN,
        "no client",
    ),
    ("no pairs", "/envoy", ["X-Forwarded-Client-Cert: hello"], FAILED, "expected KEY=VALUE"),
    (
        "open quote",
        "/envoy",
        ['X-Forwarded-Client-Cert: Cert="abc'],
        FAILED,
        "more than one element|KEY=VALUE|no cert",
    ),
    (
        "base64 alone",
        "/rfc",
        ["Client-Cert: " + base64.b64encode(ORDERS.der).decode()],
        FAILED,
        "client-cert",
    ),
    (
        "a list",
        "/rfc",
        [rfc_header(ORDERS) + ", " + rfc_header(PLAIN).partition(" ")[2]],
        FAILED,
        "expected the end",
    ),
    ("a string", "/rfc", ['Client-Cert: "MIIB"'], FAILED, "no byte sequence"),
    ("bytes that are none", "/rfc", ["Client-Cert: :AAAA:"], FAILED, "no certificate in DER"),
    (
        "endless chain",
        "/rfc",
        [rfc_header(BELOW), "Client-Cert-Chain: " + ", ".join([rfc_header(BETWEEN).partition(" ")[2]] * 9)],
        FAILED,
        "more than 8",
    ),
]


@pytest.mark.parametrize(
    ("target", "lines", "code", "detail"), [case[1:] for case in ATTACKS], ids=[case[0] for case in ATTACKS]
)
def test_attacks(gateway: Gateway, target: str, lines: list[str], code: str, detail: str) -> None:
    status = 403 if code == FORBIDDEN else 401
    assert_refused_because(gateway, lambda: ask(gateway, target, *lines), status, code, detail)


@pytest.mark.parametrize("form", FORMS)
def test_a_peer_that_is_no_trusted_proxy_is_not_believed(gateway: Gateway, form: str) -> None:
    since = gateway.mark()
    with gateway.client("open") as client:
        assert_refused(client.get(f"/{form}", FORMS[form](ORDERS)), 401, FAILED)
    assert "trusted_proxies" in gateway.wait_log(since)[0]["detail"]


def test_report_only_lets_pass_without_header_or_consumer(gateway: Gateway) -> None:
    with gateway.client("open") as client:
        lines = (nginx_header(ORDERS), "x_ssl_client_cert: x", envoy_header(ORDERS), "X-Consumer: orders")
        response = client.get("/report", *lines)
    assert who(response) is None
    assert not seen(response).keys() & {
        "x-ssl-client-cert", "x_ssl_client_cert", "x-forwarded-client-cert", "x-consumer",
    }  # fmt: skip


def test_the_ca_file_is_read_again(start_gateway: StartGateway, upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(CA.pem)
    plugin = {"use": "mtls", "header": "client-cert", "clients": CLIENTS, "ca_file": str(file)}
    tables = config(
        upstream.address,
        listener={"trusted_proxies": ["127.0.0.1"]},
        plugins={"x": plugin},
        route={"plugins": ["x"]},
    )
    gateway = start_gateway(tables)
    assert ask(gateway, "/", rfc_header(ORDERS)).status == 200
    file.write_text(OTHER_CA.pem)
    wait_for(lambda: ask(gateway, "/", rfc_header(FORGED)).status == 200)
    assert ask(gateway, "/", rfc_header(ORDERS)).status == 401


def test_nginx_in_front(gateway: Gateway, ca_file: Path, tmp_path: Path) -> None:
    """The whole way: a TLS client with a certificate, and one without."""
    proxy = issue("CN=proxy", DNSName("localhost"), by=CA, server=True)
    for name, issued in (("proxy", proxy), ("orders", ORDERS)):
        (tmp_path / f"{name}.pem").write_text(issued.pem)
        (tmp_path / f"{name}.key").write_text(issued.key_pem)
    tls_port = free_port()
    # A second server, since the one of `nginx` speaks no TLS.
    server = f"""
      }}
      server {{
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {tmp_path}/proxy.pem;
        ssl_certificate_key {tmp_path}/proxy.key;
        ssl_client_certificate {ca_file};
        ssl_verify_client optional;
        location / {{
            proxy_pass {gateway.url};
            proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
        }}
    """
    context = ssl.create_default_context(cafile=str(ca_file))
    with nginx(tmp_path, server):
        url = f"https://localhost:{tls_port}/nginx"
        with httpx.Client(verify=context, trust_env=False) as client:
            response = client.get(url, headers={"X-SSL-Client-Cert": ORDERS.escaped})
            assert response.status_code == 401
            assert response.json()["code"] == REQUIRED
        context.load_cert_chain(tmp_path / "orders.pem", tmp_path / "orders.key")
        with httpx.Client(verify=context, trust_env=False) as client:
            response = client.get(url)
            fields = dict(response.json()["fields"])
            assert fields["X-Consumer"] == "orders.svc.example"


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ({"header": "client-cert"}, "clients"),
        ({"header": "client-cert", "clients": []}, "must not be empty"),
        ({"header": "x-cert", "clients": CLIENTS}, "x-cert"),
        ({"header": "client-cert", "clients": [{"consumer": "all"}]}, "every certificate would fit"),
        ({"header": "client-cert", "clients": [{"fingerprints": ["ab:cd"]}]}, "64 hexadecimal digits"),
        ({"header": "client-cert", "clients": [{"subjects": ["orders"]}]}, "RFC 4514"),
        ({"header": "client-cert", "clients": [{"sans": ["orders.example"]}]}, "dns:NAME"),
        ({"header": "client-cert", "clients": [{"sans": ["dns:*"]}]}, "dns:NAME"),
        ({"header": "client-cert", "clients": [{"sans": ["dns:a.*.example"]}]}, "dns:NAME"),
        ({"header": "client-cert", "clients": [{"sans": ["uri:spiffe://x/a*"]}]}, "dns:NAME"),
        ({"header": "client-cert", "clients": CLIENTS, "trust_fields": True}, "x-forwarded-client-cert"),
        (
            {"header": "x-forwarded-client-cert", "clients": CLIENTS, "trust_fields": True, "ca_file": "a"},
            "verified",
        ),
    ],
)
def test_what_a_configuration_may_not_say(plugin: dict[str, Any], problem: str) -> None:
    assert problem in problems_of({"use": "mtls", **plugin})
