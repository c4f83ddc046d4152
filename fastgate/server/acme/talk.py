"""One conversation with a directory: account, order, challenge, certificate. Everything here blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import requests
from acme import challenges, client, messages
from msgspec import Struct

from fastgate.config.model import Acme
from fastgate.server.acme.board import Challenge
from fastgate.server.acme.failures import Failure
from fastgate.server.acme.network import TLSALPN01, Network, account_key

__all__ = ["Account", "Authorization", "Talk"]


class Account(Struct, frozen=True):
    """key: PEM, ECDSA P-256. uri: how the directory calls the account. email: what it was told last."""

    key: str
    uri: str
    email: str


class Authorization(NamedTuple):
    """What is to be done for an order. challenge None: nothing, the directory still knows from before."""

    uri: str
    challenge: Challenge | None
    body: messages.ChallengeBody | None


class Talk:
    """Belongs to one order, and to one thread at a time."""

    def __init__(self, config: Acme, key: str, account: Account | None = None) -> None:
        self._config = config
        self._key = account_key(key)
        registration = None
        if account is not None:
            registration = messages.RegistrationResource(body=messages.Registration(), uri=account.uri)
        self.network = Network(self._key, config.ca_file, registration)
        self._client: client.ClientV2 | None = None

    def _directory(self) -> client.ClientV2:
        if self._client is None:
            directory = client.ClientV2.get_directory(self._config.directory, self.network)
            self._client = client.ClientV2(directory, self.network)
        return self._client

    def close(self) -> None:
        self.network.session.close()

    # -- account (RFC 8555 7.3)

    def register(self, key: str) -> Account:
        """With a key that the directory knows it is the account of before."""
        acme, eab = self._directory(), self._config.eab
        binding: dict[str, Any] | None = None
        if eab is not None:
            public = self._key.public_key()
            mac = eab.hmac_key if isinstance(eab.hmac_key, str) else eab.hmac_key.reveal()
            binding = messages.ExternalAccountBinding.from_data(
                public, eab.kid, mac, acme.directory, eab.algorithm
            )
        elif acme.external_account_required():
            raise Failure(
                "the directory wants an external account binding: `eab` says which",
                code="externalAccountRequired",
                everyone=True,
            )
        wanted = messages.NewRegistration.from_data(
            email=self._config.email or None,
            terms_of_service_agreed=True,  # the configuration has said so: terms_agreed = true
            external_account_binding=binding,
        )
        # Not the library's `new_account`: one that is there already is what we want, and no conflict.
        answer = acme.net.post(acme.directory["newAccount"], wanted, new_nonce_url=acme.directory["newNonce"])
        uri = answer.headers.get("Location", "")
        status = answer.json().get("status", "valid")
        if not uri or status != "valid":
            raise Failure(f"the account {uri} is {status}", code="unauthorized", everyone=True)
        self.network.account = messages.RegistrationResource(body=messages.Registration(), uri=uri)
        return Account(key=key, uri=uri, email=self._config.email)

    def is_usable(self, account: Account) -> bool:
        """Whether the directory still knows it, and lets it order."""
        try:
            return bool(self._post(account.uri, None).json().get("status") == "valid")
        except messages.Error as error:
            if error.code in ("accountDoesNotExist", "unauthorized"):
                return False
            raise

    def tell_email(self, account: Account) -> Account:
        """The account's new address (RFC 8555 7.3.2); none: it has none any more."""
        contact = (f"mailto:{self._config.email}",) if self._config.email else ()
        self._post(account.uri, messages.UpdateRegistration(contact=contact))
        return Account(key=account.key, uri=account.uri, email=self._config.email)

    # -- order (RFC 8555 7.4)

    def order(self, request_pem: bytes) -> tuple[messages.OrderResource, list[Authorization]]:
        order = self._directory().new_order(request_pem)
        return order, [self._authorization(each) for each in order.authorizations]

    def _authorization(self, resource: messages.AuthorizationResource) -> Authorization:
        body = resource.body
        if body.status == messages.STATUS_VALID:
            return Authorization(resource.uri, None, None)
        wanted = challenges.HTTP01 if self._config.challenge == "http-01" else TLSALPN01
        for one in body.challenges:
            if isinstance(one.chall, wanted):
                text = one.chall.key_authorization(self._key)
                key = one.chall.encode("token") if wanted is challenges.HTTP01 else body.identifier.value
                return Authorization(resource.uri, Challenge(self._config.challenge, key, text), one)
        offered = ", ".join(sorted(str(one.to_partial_json().get("type")) for one in body.challenges)[:10])
        raise Failure(f"the directory offers no {self._config.challenge} for it, only {offered}")

    def answer(self, authorization: Authorization) -> None:
        """Tells the directory that it may look now (RFC 8555 7.5.1)."""
        assert authorization.body is not None
        self._post(authorization.body.uri, authorization.body.chall.response(self._key))

    def state(self, authorization: Authorization) -> str:
        """ "pending" or "valid". Raises Failure: the directory has looked, and was not content."""
        body = messages.Authorization.from_json(self._post(authorization.uri, None).json())
        if body.status in (messages.STATUS_PENDING, messages.STATUS_VALID):
            return str(body.status.name)
        raise next(
            (one.error for one in body.challenges if one.error is not None),
            Failure(f"the authorization is {body.status.name if body.status else 'without a status'}"),
        )

    def finalize(self, order: messages.OrderResource) -> None:
        """Asks for the certificate. An order that is not ready yet is asked again by ``certificate``."""
        try:
            self._directory().begin_finalization(order)
        except messages.Error as error:
            if error.code != "orderNotReady":
                raise

    def certificate(self, order: messages.OrderResource) -> str | None:
        """The chain, PEM; None: the directory is not done yet. Raises Failure: it will not be."""
        body = messages.Order.from_json(self._post(order.uri, None).json())
        if body.status == messages.STATUS_INVALID:
            raise body.error or Failure("the order is invalid, and the directory does not say why")
        if body.status == messages.STATUS_VALID and body.certificate:
            return self._post(body.certificate, None).text
        if body.status == messages.STATUS_READY:
            self.finalize(order)
        return None

    # -- renewal information (RFC 9773)

    def renewal_time(self, chain: str) -> tuple[float | None, float]:
        """When it should be renewed (None: the directory has no opinion), and when to ask again; both seconds
        since 1970."""
        when, again = self._directory().renewal_time(chain.encode())
        return None if when is None else when.timestamp(), again.timestamp()

    def _post(self, uri: str, body: Any) -> requests.Response:
        acme = self._directory()
        return acme.net.post(uri, body, new_nonce_url=acme.directory["newNonce"])
