"""Tests of webapp: every view and status, with Django's test client."""

import io
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest

if missing := [name for name in ("django", "ninja", "whitenoise") if not find_spec(name)]:
    pytest.skip(f"{missing} not installed: pip install -r requirements-web.txt", allow_module_level=True)

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, override_settings

API = "/api/caption"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def client(captioner) -> Client:
    return Client()


@pytest.fixture
def photo(picture):
    """A function that makes an uploaded file."""
    return lambda name="rose.jpg", data=None: SimpleUploadedFile(name, picture() if data is None else data)


def check_deployment(**environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WEBAPP_", "DJANGO_"))}
    command = [sys.executable, "webapp/manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    return subprocess.run(command, cwd=REPOSITORY, env=kept | environment, capture_output=True, text=True)


def test_the_deployment_check_is_clean():
    checked = check_deployment(WEBAPP_SECRET_KEY=secrets.token_urlsafe(50))
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "WEBAPP_SECRET_KEY is not set"),
        ({"WEBAPP_SECRET_KEY": "key", "WEBAPP_DEBUG": "yes"}, "WEBAPP_DEBUG must be 0 or 1"),
        ({"WEBAPP_SECRET_KEY": "key", "WEBAPP_MAX_MB": "0"}, "WEBAPP_MAX_MB must be a positive number"),
    ],
)
def test_wrong_settings(environment, complaint):
    checked = check_deployment(**environment)
    assert checked.returncode != 0
    assert complaint in checked.stderr


def test_page(client):
    response = client.get("/")
    assert response.status_code == 200
    assert "examples/raccoon" in response.text
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_page_after_a_photo(client, photo, picture):
    response = client.post("/", {"photos": [photo("rose.jpg"), photo("leaf.png", picture("lime", kind="PNG"))]})
    assert response.status_code == 200
    assert "A red photo." in response.text
    assert "A green photo." in response.text
    assert "data:image/png;base64," in response.text  # the heat maps
    assert "no-store" in response.headers["Cache-Control"]


def test_the_script_gets_the_captions_alone(client, photo):
    response = client.post("/", {"photos": photo()}, headers={"X-Fragment": "1"})
    assert response.text.strip().startswith("<article")


def test_example(client):
    assert "raccoon.jpg" in client.post("/", {"example": "raccoon.jpg"}).text


@pytest.mark.parametrize("name", ["../README.md", "README.md", "no.jpg", "/etc/passwd"])
def test_no_other_file_is_an_example(client, name):
    response = client.post("/", {"example": name})
    assert response.status_code == 400
    assert "There is no such example" in response.text


def test_no_photo(client):
    response = client.post("/", {})
    assert response.status_code == 400
    assert "Choose a photo first." in response.text


def test_too_many_photos(client, photo):
    response = client.post("/", {"photos": [photo() for _ in range(9)]})
    assert response.status_code == 400
    assert "at most 8" in response.text


def test_a_broken_file_costs_only_its_own_caption(client, photo):
    response = client.post("/", {"photos": [photo("<b>.jpg", b"no picture"), photo()]})
    assert response.status_code == 422
    assert "A red photo." in response.text
    assert "&lt;b&gt;.jpg" in response.text
    assert "is not a JPEG" in response.text


def test_the_form_needs_its_token(captioner, photo):
    response = Client(enforce_csrf_checks=True).post("/", {"photos": photo()})
    assert response.status_code == 403
    assert "Load the page again" in response.text


def test_methods_of_the_page(client):
    assert client.head("/").status_code == 200
    assert client.put("/").status_code == 405


def test_unknown_page_and_host(client):
    assert client.get("/nothing").status_code == 404
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_a_request_for_another_host_is_one_line_of_the_log(client):
    [console] = (handler for handler in logging.getLogger().handlers if handler.filters)
    with mock.patch.object(console, "stream", io.StringIO()):
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        assert console.stream.getvalue().count("\n") == 1
        assert "evil.example" in console.stream.getvalue()


def test_a_failure_shows_nothing_of_the_program(captioner, monkeypatch, photo):
    monkeypatch.setattr(captioner, "caption_pixels", lambda pixels: 1 / 0)
    response = Client(raise_request_exception=False).post("/", {"photos": photo()})
    assert response.status_code == 500
    assert "ZeroDivisionError" not in response.text
    response = Client(raise_request_exception=False).post(API, {"image": photo()})
    assert response.status_code == 500
    assert response.json() == {"error": "Internal Server Error."}


def test_health(client, captioner):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.post("/healthz").status_code == 405


def test_without_a_model(no_model, photo):
    health = Client().get("/healthz")
    assert health.status_code == 503
    assert health.json()["error"] == "models/bundled.h5 does not exist."
    answer = Client().post(API, {"image": photo()})
    assert answer.status_code == 503
    assert answer.json() == {"error": "The server cannot load its model: /healthz says why."}
    page = Client().post("/", {"photos": [photo(), photo("leaf.jpg")]})
    assert page.status_code == 503
    assert page.text.count("The server cannot load its model") == 1
    assert "rose.jpg" not in page.text


def test_api_with_a_form(client, photo):
    response = client.post(API, {"image": photo()})
    assert response.status_code == 200
    answer = response.json()
    assert answer["caption"] == "a red photo"
    assert answer["score"] == pytest.approx(0.8 * 2.718281828**-0.5, abs=1e-4)
    assert answer["words"] == [
        {"word": "a", "probability": 0.9},
        {"word": "red", "probability": 0.6},
        {"word": "photo", "probability": 0.3},
    ]
    assert [other["caption"] for other in answer["alternatives"]] == ["one red photo", "the red photo"]


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream"])
def test_api_with_a_body(client, content_type, picture):
    response = client.post(API, picture("blue", kind="PNG"), content_type=content_type)
    assert response.json()["caption"] == "a blue photo"


def test_api_with_a_body_that_curl_calls_a_form(client, picture):
    data = picture("blue") + b"&" * 2000  # more fields than Django reads
    response = client.post(API, data, content_type="application/x-www-form-urlencoded")
    assert response.status_code == 200
    assert response.json()["caption"] == "a blue photo"


def test_api_does_not_ask_for_a_token(captioner, photo):
    assert Client(enforce_csrf_checks=True).post(API, {"image": photo()}).status_code == 200


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": {}},
        {"data": {"photo": "text"}},
        {"data": {"image": "text"}},
        {"data": b"", "content_type": "image/jpeg"},
        {"data": {"image": SimpleUploadedFile("empty.jpg", b"")}},
    ],
)
def test_api_without_a_photo(client, arguments):
    response = client.post(API, **arguments)
    assert response.status_code == 400
    assert "send it as the field image" in response.json()["error"]


def test_api_with_a_damaged_form(client):
    response = client.post(API, b"nonsense", content_type="multipart/form-data")
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize("kind", ["broken", "bomb", "heic", "cut"])
def test_api_with_a_photo_that_cannot_be_read(client, kind, bomb, heic, photo, picture):
    data = {"broken": b"no picture", "bomb": bomb, "heic": heic, "cut": picture(size=(300, 300))[:700]}[kind]
    response = client.post(API, {"image": photo(f"{kind}.jpg", data)})
    assert response.status_code == 422
    assert f"{kind}.jpg" in response.json()["error"]
    assert client.post(API, data, content_type="image/jpeg").status_code == 422


@pytest.mark.parametrize("path", ["/", API])
def test_large_uploads_are_refused_before_they_are_read(client, path, photo):
    response = client.post(path, {"image": photo("large.jpg", bytes(20_000_000))})
    assert response.status_code == 413
    assert "more than 15 MB" in response.text
    if path == API:
        assert client.post(API, bytes(15_050_000), content_type="image/jpeg").status_code == 413


@pytest.mark.parametrize("path", ["/", API])
def test_an_upload_in_chunks_is_told_what_it_lacks(client, path):
    response = client.generic("POST", path, headers={"transfer-encoding": "chunked"})
    assert response.status_code == 411
    assert "send it with the header Content-Length" in response.text


def test_the_limit_is_that_of_a_whole_form(client, photo):
    assert "At most 8 at once, and 15 MB together." in client.get("/").text
    response = client.post("/", {"photos": [photo(data=bytes(6_000_000)) for _ in range(3)]})
    assert response.status_code == 413
    assert "send a smaller photo, or fewer at once" in response.text


def test_uploads_stay_in_memory(client, monkeypatch, tmp_path, photo, picture):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))  # no temporary file can be made
    data = picture() + bytes(10_000_000)
    assert client.post(API, {"image": photo("padded.jpg", data)}).status_code == 200


def test_a_flood_is_told_to_come_back(captioner, monkeypatch, photo):
    let_go, inside = threading.Event(), threading.Event()
    caption_pixels = captioner.caption_pixels

    def slowly(pixels):
        inside.set()
        let_go.wait(10)
        return caption_pixels(pixels)

    monkeypatch.setattr(captioner, "caption_pixels", slowly)
    answers = []
    with override_settings(QUEUE_SIZE=1):
        first = threading.Thread(target=lambda: answers.append(Client().post(API, {"image": photo()})))
        first.start()
        assert inside.wait(10)
        for path, field in ((API, "image"), ("/", "photos")):
            response = Client().post(path, {field: photo()})
            assert response.status_code == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert "try again" in response.text
        let_go.set()
        first.join(10)
    assert [response.status_code for response in answers] == [200]
    assert Client().post(API, {"image": photo()}).status_code == 200


def test_errors_below_the_api_are_json(client):
    assert client.get(API).status_code == 405
    assert client.get(API).headers["Allow"] == "POST"
    assert client.get(API).json() == {"error": "Method Not Allowed."}
    assert client.get("/api/nothing").json() == {"error": "Not Found."}


def test_description_of_the_api(client):
    description = client.get("/api/openapi.json").json()
    operation = description["paths"]["/api/caption"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    assert set(operation["responses"]) == {"200", "400", "411", "413", "422", "429", "503"}
    assert "https://" not in json.dumps(description)


def test_documentation_comes_from_this_server(client):
    page = client.get("/api/docs").text
    assert "/static/ninja/swagger-ui-bundle" in page
    assert "https://" not in page
    bundle = page.split('<script src="')[1].split('"')[0]
    assert client.get(bundle).status_code == 200
