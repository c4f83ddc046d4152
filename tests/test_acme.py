"""Orders, accounts and renewal, against a real directory that validates (pebble)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acme import messages
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.acme import Replica, Responder, acme_config, until
from support.directory import Directory
from support.pebble import EAB_KEY, Pebble

from fastgate.config import model
from fastgate.server.acme.storage import Names
from fastgate.server.acme.talk import Talk


@pytest.fixture
def pebble(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pebble]:
    folder = tmp_path / "pebble"
    folder.mkdir()
    with Pebble(folder, **getattr(request, "param", {})) as pebble:
        yield pebble


def config_for(pebble: Pebble, tmp_path: Path, **more: Any) -> model.Acme:
    return acme_config(pebble.directory, pebble.ca_file, {"path": str(tmp_path / "store")}, **more)


async def test_what_was_issued_is_there_without_a_directory(pebble: Pebble, tmp_path: Path) -> None:
    config = config_for(pebble, tmp_path)
    async with Replica(config, "a.example.com", "b.example.com") as first, Responder(pebble, first.board):
        await first.wait_shown()
        await first.wait_view(lambda view: not first.board.tokens)
    pebble.kill()
    files = [each for each in (tmp_path / "store").rglob("*") if each.is_file()]
    assert sorted(each.name for each in files) == [
        "a.example.com.json", "account.json", "b.example.com.json", "lock",
    ]  # fmt: skip
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}
    assert {each.stat().st_mode & 0o777 for each in (tmp_path / "store").rglob("*") if each.is_dir()} == {
        0o700
    }
    async with Replica(config, "a.example.com", "b.example.com") as second:
        await second.wait_shown()
        assert second.shown == first.shown
        assert second.view().problem == ""


async def test_a_certificate_is_renewed_before_it_expires(pebble: Pebble, tmp_path: Path) -> None:
    async with (
        Replica(config_for(pebble, tmp_path), "a.example.com") as replica,
        Responder(pebble, replica.board),
    ):
        await replica.wait_shown()
        before = replica.of("a.example.com")
        assert before.not_after is not None
        assert before.renew_at is not None
        lifetime = before.not_after - replica.clock()
        assert 0.66 < (before.renew_at - replica.clock()) / lifetime < 0.73

        def put_back(domain: str) -> None:
            replica.clock.later = 0

        replica.on_set = put_back
        replica.clock.later = before.renew_at - replica.clock() + 1
        replica.wake()
        await replica.wait_shown(times=2)
        assert replica.of("a.example.com").serial != before.serial
        assert replica.of("a.example.com").state == "valid"


@pytest.mark.parametrize("pebble", [{"nonce_reject": 30}], indirect=True)
async def test_refused_nonces_are_no_failure(pebble: Pebble, tmp_path: Path) -> None:
    names = [f"n{at}.example.com" for at in range(6)]
    async with Replica(config_for(pebble, tmp_path), *names) as replica, Responder(pebble, replica.board):
        await replica.wait_shown()
        assert not any(one.failures or one.problem for one in replica.view().certificates)
        assert "JWS has an invalid anti-replay nonce" in pebble.log() or "nonce" in pebble.log().lower()


@pytest.mark.parametrize("key_type", ["ecdsa-p256", "rsa-2048"])
async def test_keys_are_of_the_wanted_kind(pebble: Pebble, tmp_path: Path, key_type: str) -> None:
    async with (
        Replica(config_for(pebble, tmp_path, key_type=key_type), "a.example.com") as replica,
        Responder(pebble, replica.board),
    ):
        await replica.wait_shown()
    key = load_pem_private_key(replica.shown["a.example.com"][1], None)
    assert isinstance(key, EllipticCurvePrivateKey if key_type == "ecdsa-p256" else RSAPrivateKey)


@pytest.mark.parametrize("pebble", [{"eab": True}], indirect=True)
async def test_external_account_binding(pebble: Pebble, tmp_path: Path) -> None:
    async with Replica(config_for(pebble, tmp_path), "a.example.com") as none:
        view = await none.wait_view(lambda view: bool(view.problem))
        assert "the directory wants an external account binding: `eab` says which" in view.problem
    wrong = config_for(pebble, tmp_path, eab={"kid": "kid-1", "hmac_key": "AAAA"})
    async with Replica(wrong, "a.example.com") as refused:
        view = await refused.wait_view(lambda view: bool(view.problem))
        assert "unauthorized" in view.problem or "malformed" in view.problem
    right = config_for(pebble, tmp_path, eab={"kid": "kid-1", "hmac_key": EAB_KEY})
    async with Replica(right, "a.example.com") as replica, Responder(pebble, replica.board):
        await replica.wait_shown()


async def test_a_directory_that_comes_later_is_used(pebble: Pebble, tmp_path: Path) -> None:
    pebble.kill()
    async with Replica(config_for(pebble, tmp_path), "a.example.com") as replica:
        view = await replica.wait_view(lambda view: bool(view.problem))
        assert "the directory can't be reached" in view.problem
        assert view.certificates[0].state == "pending"
        pebble.start()
        async with Responder(pebble, replica.board):
            await replica.wait_shown()
            await replica.wait_view(lambda view: not view.problem)


async def test_a_name_that_fails_holds_no_other_up(pebble: Pebble, tmp_path: Path) -> None:
    names = ("good.example.com", "bad.example.com", "fine.example.com")
    async with (
        Replica(config_for(pebble, tmp_path), *names) as replica,
        Responder(pebble, replica.board) as responder,
    ):
        responder.refuses = {"bad.example.com"}
        await replica.wait_shown("good.example.com", "fine.example.com")
        await replica.wait_view(lambda view: replica.of("bad.example.com").failures > 0)
        bad = replica.of("bad.example.com")
        assert bad.state == "pending"
        assert bad.problem.startswith("unauthorized: ")
        assert bad.next_try is not None
        assert replica.view().problem == ""
        responder.refuses = set()
        await replica.wait_shown("bad.example.com")
        await replica.wait_view(lambda view: replica.of("bad.example.com").problem == "")


async def test_a_directory_that_has_forgotten_the_account_gets_another(
    pebble: Pebble, tmp_path: Path
) -> None:
    config = config_for(pebble, tmp_path)
    async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board):
        await replica.wait_shown()
        account = replica.view().account
    pebble.kill()
    pebble.start()
    async with Replica(config, "a.example.com", "b.example.com") as again, Responder(pebble, again.board):
        await again.wait_shown()
        assert again.view().account not in ("", account)


async def test_a_deactivated_account_is_replaced(pebble: Pebble, tmp_path: Path) -> None:
    config = config_for(pebble, tmp_path)
    async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board):
        await replica.wait_shown()
    names = Names(config.directory)
    record = (tmp_path / "store" / names.account).read_bytes()
    account = names.read_account(record)
    talk = Talk(config, account.key, account)
    talk._post(account.uri, messages.UpdateRegistration.from_json({"status": "deactivated"}))
    talk.close()
    async with Replica(config, "a.example.com", "b.example.com") as again, Responder(pebble, again.board):
        await again.wait_shown()
        assert again.view().account not in ("", account.uri)


async def test_a_new_email_is_told(pebble: Pebble, tmp_path: Path) -> None:
    for at, email in enumerate(("old@example.com", "new@example.com", "")):
        config = config_for(pebble, tmp_path, email=email)
        async with Replica(config, f"n{at}.example.com") as replica, Responder(pebble, replica.board):
            await replica.wait_shown()
            assert replica.view().problem == ""
    record = (tmp_path / "store" / Names(config.directory).account).read_bytes()
    assert Names(config.directory).read_account(record).email == ""


async def test_the_directory_says_when_to_renew(pebble: Pebble, tmp_path: Path) -> None:
    """RFC 9773, by a directory that is pebble's with the one more resource that this pebble lacks."""
    with Directory(tmp_path) as front:
        real = Talk(config_for(pebble, tmp_path), _key())
        found = json.loads(real._directory().directory.json_dumps())
        real.close()
        front.answers["/dir"] = (200, {}, {**found, "renewalInfo": f"{front.url}/renewal-info"})
        both = tmp_path / "both.pem"
        both.write_text(pebble.ca_file.read_text() + front.ca_file.read_text())
        window = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}

        def say(path: str) -> tuple[int, dict[str, str], Any]:
            return 200, {"Retry-After": "21600"}, {"suggestedWindow": window}

        config = acme_config(f"{front.url}/dir", both, {"path": str(tmp_path / "store")})
        async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board):
            await replica.wait_shown()
            serial = replica.of("a.example.com").serial
            asked = await until(lambda: [path for path in front.asked if path.startswith("/renewal-info/")])
        # It was revoked, say: the window has passed.
        front.answers[asked[0]] = say
        async with Replica(config, "a.example.com") as replica, Responder(pebble, replica.board):
            await replica.wait_shown(times=2)
            assert replica.history[0][1] == serial
            assert replica.of("a.example.com").serial != serial


def _key() -> str:
    from fastgate.server.acme.keys import make_key

    return make_key("ecdsa-p256")
