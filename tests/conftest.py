"""Options and fixtures that all tests share."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.gateway import Gateway
from support.upstream import Upstream

pytest_plugins = ["fastgate.testing"]

StartGateway = Callable[[dict[str, Any]], Gateway]
StartUpstream = Callable[..., Upstream]


_state = tempfile.TemporaryDirectory(prefix="fastgate-state-")


def pytest_configure(config: pytest.Config) -> None:
    # Gateways that are started here keep their history there, and not where this user's own have it.
    os.environ["XDG_STATE_HOME"] = _state.name
    uvloop.new_event_loop().close()  # libuv's first loop opens a pipe that it keeps


def pytest_unconfigure(config: pytest.Config) -> None:
    _state.cleanup()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the expected files anew, then review them"
    )


@pytest.fixture(scope="module", autouse=True)
def no_descriptor_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Behind a module: what its tests opened here, they closed, but for its `DESCRIPTORS_LEFT`."""
    most = _descriptors() + getattr(request.module, "DESCRIPTORS_LEFT", 0)
    yield
    if _descriptors() > most:
        gc.collect()
    assert _descriptors() <= most, f"{request.node.name} leaves descriptors open"


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether expected files are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def start_upstream() -> Iterator[StartUpstream]:
    """Starts upstreams that end with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Upstream(*arguments, **options))


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Starts gateways that are stopped, and checked for leaks, with the test."""
    started = 0
    with ExitStack() as stack:

        def start(tables: dict[str, Any]) -> Gateway:
            nonlocal started
            started += 1
            directory = tmp_path / f"gateway{started}"
            directory.mkdir()
            return stack.enter_context(Gateway(tables, directory))

        yield start


@pytest.fixture(scope="module", params=[{}, {"FASTGATE_TLS": "python"}], ids=["direct", "python"])
def tls_engine(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment of a gateway that has OpenSSL at hand, or is without, as in a Python that has it built
    in."""
    chosen: dict[str, str] = request.param
    return chosen


@pytest.fixture(scope="module")
def module_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(module_upstream: Upstream) -> Iterator[Upstream]:
    """The module's upstream. Its scripts are the test's own, and what its threads met fails this test."""
    module_upstream.clear()
    module_upstream.errors.clear()
    yield module_upstream
    assert not module_upstream.errors, f"the upstream met: {module_upstream.errors}"
    assert not module_upstream.unused, f"{module_upstream.unused} scripts were never asked for"


@pytest.fixture(scope="module")
def module_gateway(
    request: pytest.FixtureRequest, module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """The module's gateway, configured by its function `gateway_config(upstream_address)`."""
    tables = request.module.gateway_config(module_upstream.address)
    with Gateway(tables, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def gateway(module_gateway: Gateway, upstream: Upstream) -> Gateway:
    return module_gateway
