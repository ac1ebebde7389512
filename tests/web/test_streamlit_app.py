"""Tests of streamlit_app.py."""

from importlib.util import find_spec
from pathlib import Path

import pytest

if not find_spec("streamlit"):
    pytest.skip("streamlit is not installed: pip install -r requirements-web.txt", allow_module_level=True)

import streamlit
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "streamlit_app.py"


@pytest.fixture
def app(colour_captioner, monkeypatch):
    from caption_generator.captioner import Captioner

    streamlit.cache_data.clear()
    streamlit.cache_resource.clear()
    monkeypatch.setattr(Captioner, "load", lambda: colour_captioner)
    yield AppTest.from_file(str(APP), default_timeout=30).run()
    streamlit.cache_data.clear()
    streamlit.cache_resource.clear()


def test_first_sight(app, colour_captioner):
    assert not app.exception
    assert app.title[0].value == "A photo in, a sentence out"
    assert not colour_captioner.batches


def test_example(app):
    app.selectbox[0].select("raccoon.jpg").run()
    assert not app.exception
    assert app.header[0].value.endswith("photo")
    assert app.metric[0].value == "49%"


def test_uploads_and_where_the_model_looked(app, picture):
    uploads = [("rose.jpg", picture("red"), "image/jpeg"), ("leaf.png", picture("lime", kind="PNG"), "image/png")]
    app.file_uploader[0].set_value(uploads).run()
    assert not app.exception
    assert [header.value for header in app.header] == ["A red photo", "A green photo"]
    assert app.text_input[0].value == "A red photo."
    app.button_group[0].set_value(1).run()
    assert not app.exception


def test_photos_of_the_same_name(app, picture):
    app.file_uploader[0].set_value([("raccoon.jpg", picture(), "image/jpeg")] * 2)
    app.selectbox[0].select("raccoon.jpg").run()
    assert not app.exception
    assert len(app.header) == 3


def test_a_broken_file_is_named(app):
    app.file_uploader[0].set_value([("broken.jpg", b"no picture", "image/jpeg")]).run()
    assert not app.exception
    assert "is not a JPEG" in app.error[0].value
