"""The site on a free port of this machine, for the load test and the screenshot."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
START_SECONDS = 120


@contextmanager
def local_server(**environment: str) -> Iterator[tuple[str, int]]:
    """Run gunicorn.

    Args:
        environment: more variables of the environment, such as WEB_CONCURRENCY.

    Yields:
        Its address without a slash at the end, and the process number of gunicorn's master.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as static:
        environment = {
            **os.environ,
            "WEBAPP_SECRET_KEY": secrets.token_urlsafe(50),
            "WEBAPP_HTTPS": "0",
            "MALLOC_ARENA_MAX": "2",
            "WEBAPP_STATIC_ROOT": static,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            **environment,
        }
        collect = [sys.executable, "webapp/manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
        subprocess.run(collect, cwd=REPOSITORY, env=environment, check=True)
        serve = [sys.executable, "-m", "gunicorn", "--config", "webapp/gunicorn.conf.py", "webapp.wsgi"]
        server = subprocess.Popen(serve, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, server)
            yield address, server.pid
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait(address: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/healthz", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the server did not start: its messages are above.")
