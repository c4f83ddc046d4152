"""The textual forms by name: how each is read, and how JSON Schema and the reference describe it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastgate.config import addresses, json_paths, templates, texts, units


class Form(NamedTuple):
    """``parse(text, options)`` gives the value or raises units.BadValue; ``pattern`` may accept more than
    ``parse``."""

    parse: Callable[[str, dict[str, Any]], Any]
    label: str
    pattern: str = ""
    default: Callable[[Any], str] = repr


def _quoted(value: Any) -> str:
    return f'"{value}"'


def _form(parse: Callable[..., Any], label: str, pattern: str = "") -> Form:
    return Form(parse, label, pattern, _quoted)


_TOKEN = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$"
_PATH = r"^/[^?#]*$"

FORMS: Final[dict[str, Form]] = {
    "duration": Form(units.parse_duration, "duration", units.DURATION_PATTERN, units.format_duration),
    "size": Form(units.parse_size, "size", units.SIZE_PATTERN, lambda v: _quoted(units.format_size(v))),
    "rate": Form(units.parse_rate, "rate", units.RATE_PATTERN, units.format_rate),
    "workers": Form(units.parse_workers, 'number or "auto"', r"^(auto|[0-9]{1,3})$", _quoted),
    "user": _form(texts.parse_user, "user, with or without group", r"^[^:\s]+(:[^:\s]+)?$"),
    "quota": _form(units.parse_quota, "quota", r"^[0-9]{1,12}/(hour|day|month)$"),
    "redis-url": _form(texts.parse_redis_url, "address of Redis", r"^(redis://|unix:/).+$"),
    "byte-rate": Form(
        units.parse_byte_rate,
        "bytes per second",
        units.BYTE_RATE_PATTERN,
        lambda v: _quoted(units.format_size(v) + "/s"),
    ),
    "bind": _form(addresses.parse_bind, "bind address", r"^(unix:/.+|.*:[0-9]{1,5})$"),
    "admin-bind": _form(addresses.parse_admin_bind, "address or Unix socket", r"^(unix:/.+|.*:[0-9]{1,5})$"),
    "address": _form(
        addresses.parse_address, "address", r"^(unix:/.+|srv:_.+|asgi:.+|https?://[^/?#@]+|.+:[0-9]{1,5})$"
    ),
    "dns-server": _form(addresses.parse_dns_server, "address of a name server", r"^[0-9A-Fa-f.:\[\]]+$"),
    "host": _form(addresses.parse_host, "host"),
    "host-pattern": _form(addresses.parse_host_pattern, "host pattern", r"^(\*\.)?[^*]+$"),
    "authority": _form(addresses.parse_authority, "host, with or without port"),
    "upstream-host": _form(addresses.parse_upstream_host, '"client", "endpoint" or a host'),
    "cidr": _form(addresses.parse_cidr, "network (CIDR)", r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"),
    "text": _form(texts.parse_text, "string", r"^.+$"),
    "name": _form(texts.parse_name, "name", r"^.{1,128}$"),
    "listener-ref": _form(texts.parse_name, "name of a listener"),
    "upstream-ref": _form(texts.parse_name, "name of an upstream"),
    "acme-ref": _form(texts.parse_name, "name of an [acme.NAME]"),
    "acme-domain": _form(addresses.parse_acme_domain, "DNS name", r"^[^*\[\]:/]+$"),
    "https-url": _form(texts.parse_https_url, "https URL", r"^https://.+$"),
    "email": _form(texts.parse_email, "email address", r"^[^@\s,?]+@[^@\s,?]+$"),
    "plugin-ref": _form(texts.parse_name, "name of a plugin"),
    "header-name": _form(texts.parse_header_name, "header name", _TOKEN),
    "set-header-name": _form(texts.parse_set_header_name, "header name", _TOKEN),
    "header-value": _form(texts.parse_header_value, "header value", r"^[\t\x20-\x7e]*$"),
    "bearer-token": _form(texts.parse_bearer_token, "token", r"^[A-Za-z0-9._~+/-]{16,}=*$"),
    "cookie-name": _form(texts.parse_cookie_name, "cookie name", _TOKEN),
    "query-name": _form(texts.parse_query_name, "parameter name", r"^.+$"),
    "method": _form(texts.parse_method, "method", _TOKEN),
    "protocol": _form(texts.parse_protocol, "protocol"),
    "path": _form(texts.parse_path, "path", _PATH),
    "path-template": _form(texts.parse_path_template, "path template", _PATH),
    "regex": _form(texts.parse_regex, "RE2 expression"),
    "template": _form(templates.parse_template, "text with placeholders"),
    "template-path": _form(templates.parse_template_path, "path with placeholders", r"^/"),
    "template-json": _form(templates.parse_template_json, "JSON with placeholders"),
    "json": _form(templates.parse_json, "JSON"),
    "json-path": _form(json_paths.parse_json_path, "path in a JSON value"),
    "json-path-or-root": _form(
        lambda text, options: json_paths.parse_json_path(text, {**options, "or_root": True}),
        "path in a JSON value, or nothing",
    ),
    "jmespath": _form(texts.parse_jmespath, "JMESPath expression"),
    "part-name": _form(templates.parse_part_name, "name of a part", r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"),
    "part-ref": _form(templates.parse_part_name, "name of a part"),
    "failure-class": _form(
        templates.parse_failure_class, "kind of failure", r"^([1-5][0-9]{2}|[1-5]xx|timeout|failure)$"
    ),
    "rate-key": _form(
        texts.parse_rate_key,
        "key",
        r"^(client-ip|consumer|global|header:.+|cookie:.+|path:[A-Za-z_][A-Za-z0-9_]*)$",
    ),
    "hash-key": _form(
        texts.parse_hash_key,
        "key",
        r"^(client-ip|consumer|header:.+|cookie:.+|query:.+|path:[A-Za-z_][A-Za-z0-9_]*)$",
    ),
    "split-key": _form(texts.parse_split_key, "key", r"^(client-ip|consumer|header:.+|cookie:.+)$"),
    "status-range": Form(
        units.parse_status_range,
        "status code or range",
        r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$",
        units.format_status_range,
    ),
    "cookie-path": _form(texts.parse_cookie_path, "path", r"^/[^?#;]*$"),
    "endpoints-file": _form(texts.parse_endpoints_file, "path of a file", r"\.(json|toml)$"),
    "otlp-url": _form(texts.parse_otlp_url, "URL", r"^https?://[^\s@?#]+$"),
    "log-path": _form(texts.parse_log_path, "path"),
    "log-format": _form(texts.parse_log_format, "log format"),
    "file": _form(texts.parse_file, "path of a file"),
    "folder": _form(texts.parse_file, "path of a folder"),
    "include": _form(texts.parse_include, "path of files, with * ? [ ]"),
}
