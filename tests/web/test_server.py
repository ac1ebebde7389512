"""Tests of gunicorn's settings, and one of everything together, with the model that ships."""

import json
import os
import runpy
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec

import pytest

if missing := [name for name in ("django", "ninja", "whitenoise", "gunicorn") if not find_spec(name)]:
    pytest.skip(f"{missing} not installed: pip install -r requirements-web.txt", allow_module_level=True)

from webapp.local_server import REPOSITORY, local_server


def print_settings(**environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "gunicorn", "--config", "webapp/gunicorn.conf.py", "--print-config", "webapp.wsgi"]
    environment = {**os.environ, "WEBAPP_SECRET_KEY": "key", **environment}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


def test_threads_follow_the_queue_and_processes_their_own_variable():
    printed = print_settings(WEBAPP_QUEUE="5", WEB_CONCURRENCY="3").stdout
    settings = dict(map(str.strip, line.split("=", 1)) for line in printed.splitlines() if "=" in line)
    assert (settings["threads"], settings["workers"]) == ("13", "3")


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"WEBAPP_QUEUE": "abc"}, "WEBAPP_QUEUE must be a positive number, not 'abc'."),
        ({"WEBAPP_SECRET_KEY": ""}, "WEBAPP_SECRET_KEY is not set: give it 50 random characters or more."),
    ],
)
def test_wrong_settings_end_gunicorn_with_one_sentence(environment, complaint):
    ended = print_settings(**environment)
    assert ended.returncode == 1
    assert ended.stderr == f"Error: {complaint}\n"


@pytest.mark.parametrize(("port", "reason"), [("", "Address already in use"), ("99999", "")])
def test_a_port_that_cannot_be_had_is_one_sentence(port, reason):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = port or str(taken.getsockname()[1])
        command = [sys.executable, "-m", "gunicorn", "--config", "webapp/gunicorn.conf.py", "webapp.wsgi"]
        environment = {**os.environ, "WEBAPP_SECRET_KEY": "key", "PORT": port}
        ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"Error: cannot listen on 127.0.0.1:{port} ({reason}") and "while attempting" not in line


def test_without_a_model_the_server_starts_and_says_why(monkeypatch, capfd):
    from webapp.captioning import service

    def broken():
        raise service.NoModel("models/bundled.litert is damaged.")

    monkeypatch.setattr(service, "service", broken)
    monkeypatch.setenv("WEBAPP_SECRET_KEY", "key")
    runpy.run_path(str(REPOSITORY / "webapp" / "gunicorn.conf.py"))["post_worker_init"](None)
    out, error = capfd.readouterr()
    assert error == "Error: models/bundled.litert is damaged.\n"
    assert out.startswith("Captions at http://")


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
