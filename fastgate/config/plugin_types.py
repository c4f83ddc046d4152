"""From ``use`` to the class of a plugin in Python: by name, by entry point, by module, by file.

Nothing of ``fastgate.plugins`` is imported here but what a configuration names, when it is checked.
"""

from __future__ import annotations

from typing import Final

# Those that ship: name -> "module:Class". "rate-limit" and "ip-filter" are native and not among them.
BUILT_IN: Final[dict[str, str]] = {
    "acl": "fastgate.plugins.acl:Acl",
    "any-of": "fastgate.plugins.any_of:AnyOf",
    "api-key": "fastgate.plugins.api_key:ApiKey",
    "basic": "fastgate.plugins.basic:Basic",
    "bot": "fastgate.plugins.bot:Bot",
    "cors": "fastgate.plugins.cors:Cors",
    "csrf": "fastgate.plugins.csrf:Csrf",
    "forward-auth": "fastgate.plugins.forward_auth:ForwardAuth",
    "geoip": "fastgate.plugins.geoip:GeoIp",
    "hmac": "fastgate.plugins.hmac_signature:HmacSignature",
    "jwt": "fastgate.plugins.jwt:Jwt",
    "maintenance": "fastgate.plugins.maintenance:Maintenance",
    "mtls": "fastgate.plugins.mtls:Mtls",
    "oauth2-introspection": "fastgate.plugins.introspection:Introspection",
    "oidc": "fastgate.plugins.oidc:Oidc",
    "request-validation": "fastgate.plugins.request_validation:RequestValidation",
    "security-headers": "fastgate.plugins.security_headers:SecurityHeaders",
    "size": "fastgate.plugins.size:Size",
    "transform": "fastgate.plugins.transform:Transform",
}
