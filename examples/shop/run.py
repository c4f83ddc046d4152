"""The shop, whole: its services, the gateways for apps and browsers before them, and a page that shows how an
order page comes together.

    python examples/shop/run.py [--port 8090]

Everything is on 127.0.0.1 and ends with Ctrl-C. The page has the port that is named, the two gateways and
their admin API the three behind it; the services take any that are free.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from page import Page
from services import PORTS, running

FOLDER: Final = Path(__file__).resolve().parent
FIRST_PORT: Final = 8090
START_PATIENCE: Final = 20.0  # seconds
STOP_PATIENCE: Final = 15.0

GUIDE: Final = """\
The shop is open. The page that shows it:

  http://127.0.0.1:{page}/

or try, in another terminal:

  curl -i http://127.0.0.1:{mobile}/orders/3            # what an app gets
  curl -i http://127.0.0.1:{web}/orders/3            # what a browser gets, of the same services
  curl -i http://127.0.0.1:{web}/orders/99           # no such order: its service's 404 is the client's
  curl -X PUT http://127.0.0.1:{page}/services/reviews -d down
  curl -i http://127.0.0.1:{web}/orders/3            # without reviews there is an answer still, which says so
  curl -X PUT http://127.0.0.1:{page}/services/customers -d failing
  curl -i http://127.0.0.1:{web}/orders/3            # without a customer there is none: 502 and why
  {fastgate} why --admin 127.0.0.1:{admin}    # what failed; with a request's id: its waterfall

The configurations: {files}. Ctrl-C ends it all.
"""


def configured(folder: Path, places: Mapping[int, int]) -> list[Path]:
    """The gateways' configurations, copied into ``folder``, with the ports that are used."""
    for file in [*FOLDER.glob("*.toml"), *FOLDER.glob("shared/*.toml")]:
        text = file.read_text()
        for usual, real in places.items():
            text = text.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{real}")
        copy = folder / file.relative_to(FOLDER)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text)
    return [folder / "mobile.toml", folder / "web.toml"]


@contextmanager
def gateway(files: list[Path], admin: int) -> Iterator[subprocess.Popen[bytes]]:
    """`fastgate run`, once it is ready. RuntimeError where it does not come up."""
    command = [sys.executable, "-m", "fastgate", "run"]
    for file in files:
        command += ["-c", str(file)]
    # In a group of its own: Ctrl-C is for this program, which then ends it in order.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + START_PATIENCE
        while not ready(admin):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the gateway did not start")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ready(admin: int) -> bool:
    """Whether the gateway's admin API says so."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Exit code: 0 ended by Ctrl-C or SIGTERM, 1 it could not be started or the gateway ended by itself."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--port", type=int, default=FIRST_PORT, help="of the page; the three behind it are used too"
    )
    port = parser.parse_args().port
    mobile, web, admin = port + 1, port + 2, port + 3
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))
            services = stack.enter_context(running({}))
            places = {PORTS[name]: service.port for name, service in services.items()}
            files = configured(folder, {**places, 8091: mobile, 8092: web, 8093: admin})
            stack.enter_context(Page(port, {"mobile": mobile, "web": web}, admin, services))
            process = stack.enter_context(gateway(files, admin))
        except (OSError, OverflowError, RuntimeError) as error:
            print(f"shop: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
        print(
            GUIDE.format(
                page=port,
                mobile=mobile,
                web=web,
                admin=admin,
                fastgate=f"{sys.executable} -m fastgate",
                files=" ".join(map(str, files)),
            ),
            flush=True,
        )
        with suppress(KeyboardInterrupt):
            process.wait()
            print("shop: the gateway has ended", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
