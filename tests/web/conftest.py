"""A site with a captioner that knows colours alone, and a browser."""

import io
import os
import secrets
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from caption_generator.common.errors import CaptionError
from caption_generator.search import Caption
from webapp.chromium import CHROMIUM, QUIET

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


class ColourCaptioner:
    """Captions a photo with its strongest colour, and counts its batches. It stands for `Captioner`."""

    def __init__(self):
        self.engine = SimpleNamespace(input_size=8, grid=(2, 3))
        self.batches: list[int] = []

    def caption_pixels(self, pixels: np.ndarray) -> list[list[Caption]]:
        self.batches.append(len(pixels))
        colours = [("red", "green", "blue")[channel] for channel in pixels.mean((1, 2)).argmax(1)]
        return [[self._caption(f"{kind} {colour} photo") for kind in ("a", "one", "the")] for colour in colours]

    def _caption(self, text: str) -> Caption:
        words = tuple((word, 0.9 - 0.3 * number) for number, word in enumerate(text.split()))
        attention = np.eye(len(words) + 1, 6, dtype=np.float32)
        return Caption(text, (*words, ("<end>", 0.9)), log_prob=-0.5, familiarity=0.8, attention=attention)


@pytest.fixture(scope="session")
def picture():
    """A function that makes the bytes of a picture of one colour."""

    def make(colour: str = "red", size: tuple[int, int] = (90, 60), kind: str = "JPEG") -> bytes:
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """A PNG of a few kB that has 400 million pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def heic() -> bytes:
    """The beginning of a file as telephones write it."""
    return b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(500)


@pytest.fixture(scope="session")
def django_site() -> Iterator[None]:
    """Django with its settings, and the static files collected."""
    with tempfile.TemporaryDirectory() as static:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "WEBAPP_SECRET_KEY": secrets.token_urlsafe(50),
            "WEBAPP_HTTPS": "0",
            "WEBAPP_HOSTS": "testserver",
            "WEBAPP_STATIC_ROOT": static,
        }
        import django
        from django.core.management import call_command

        django.setup()
        call_command("collectstatic", interactive=False, verbosity=0)
        yield


@pytest.fixture
def colour_captioner() -> ColourCaptioner:
    return ColourCaptioner()


@pytest.fixture
def captioner(django_site, colour_captioner, monkeypatch) -> ColourCaptioner:
    """The captioner of the site."""
    from webapp.captioning import service

    monkeypatch.setattr(service, "load_captioner", lambda: colour_captioner)
    monkeypatch.setattr(service, "_service", None)
    return colour_captioner


@pytest.fixture
def no_model(captioner, monkeypatch) -> None:
    """A site whose model cannot be loaded."""
    from webapp.captioning import service

    def fail():
        raise CaptionError("models/bundled.h5 does not exist.")

    monkeypatch.setattr(service, "load_captioner", fail)


@pytest.fixture(scope="session")
def address(django_site) -> Iterator[str]:
    """The address of a server in this process."""
    from django.core.servers.basehttp import WSGIRequestHandler, WSGIServer

    from webapp.wsgi import application

    class Handler(WSGIRequestHandler):
        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingMixIn, WSGIServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    server.set_app(application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    """Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r tests/web/requirements.txt")
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium, or set CHROMIUM")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address, captioner):
    """A function that opens the page in a window of its own, with the options of `Browser.new_context`.

    At the end nothing may have been asked from another server, and no script may have failed or been refused.
    """
    contexts, wrong = [], []

    def look(request):
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(f"asked for {request.url}")

    def read(message):
        # Chromium itself reports every answer that is an error.
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def open_it(path: str = "/", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", look)
        page.on("console", read)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address + path)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="session")
def find_violations():
    """A function: a page in, what axe-core finds wrong out."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm install --no-package-lock --prefix tests/web")
    script = AXE.read_text(encoding="utf-8")

    def find(page) -> list[str]:
        page.evaluate(script)
        found = page.evaluate("axe.run()")["violations"]
        return [f"{row['id']}: {row['help']} {[node['html'][:120] for node in row['nodes']]}" for row in found]

    return find
