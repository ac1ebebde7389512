"""One test of everything together: gunicorn, and the model that ships."""

import json
import urllib.request
from importlib.util import find_spec

import pytest

if missing := [name for name in ("django", "ninja", "whitenoise", "gunicorn") if not find_spec(name)]:
    pytest.skip(f"{missing} not installed: pip install -r requirements-web.txt", allow_module_level=True)

from webapp.local_server import REPOSITORY, local_server


def test_the_server_captions_as_the_captioner_does(monkeypatch):
    from caption_generator.captioner import Captioner

    paths = [REPOSITORY / "examples" / name for name in ("boats.jpg", "raccoon.jpg")]
    with local_server() as (address, _):
        for path, expected in zip(paths, Captioner.load().caption_files(paths), strict=True):
            request = urllib.request.Request(
                f"{address}/api/caption", path.read_bytes(), {"Content-Type": "image/jpeg"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.load(response)
            assert answer["caption"] == expected.best.text
            assert answer["score"] == pytest.approx(expected.best.score, abs=2e-4)
            assert len(answer["alternatives"]) == 4
