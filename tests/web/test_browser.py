"""Tests of the page in Chromium."""

import re
from base64 import b64encode
from importlib.util import find_spec

import pytest

if missing := [name for name in ("django", "ninja", "whitenoise", "playwright") if not find_spec(name)]:
    pytest.skip(f"{missing} not installed: see tests/web/requirements.txt", allow_module_level=True)

from playwright.sync_api import expect

expect.set_options(timeout=20_000)  # for a machine that has other work to do

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
HAND_OVER = """([kind, files]) => {
    const data = new DataTransfer();
    for (const [name, bytes] of files)
        data.items.add(new File([Uint8Array.from(atob(bytes), (byte) => byte.charCodeAt(0))], name));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("main").dispatchEvent(event);
}"""


@pytest.fixture
def rose(picture):
    return {"name": "rose.jpg", "mimeType": "image/jpeg", "buffer": picture("red")}


@pytest.fixture
def leaf(picture):
    return {"name": "leaf.png", "mimeType": "image/png", "buffer": picture("lime", (60, 120), "PNG")}


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(20_000_000))
    return path


def hand_over(page, kind: str, *files: dict) -> None:
    """Drop or paste files."""
    page.evaluate(HAND_OVER, [kind, [(file["name"], b64encode(file["buffer"]).decode()) for file in files]])


def choose(page, *files: dict) -> None:
    page.set_input_files("#photos", list(files))


def expect_captions(page, *captions: str) -> None:
    expect(page.locator("textarea")).to_have_count(len(captions))
    assert [field.input_value() for field in page.locator("textarea").all()] == list(captions)


def heat_is_shown(page, word) -> None:
    """The heat map of a word is visible, and lies on the photo exactly."""
    expect(word.locator(".heat")).to_have_css("opacity", "1")
    # Both at one time: the page may still move below them.
    photo, heat = word.locator(".heat").evaluate(
        "heat => [document.querySelector('.photo'), heat].map(element => element.getBoundingClientRect().toJSON())"
    )
    assert all(abs(photo[side] - heat[side]) < 1.5 for side in ("x", "y", "width", "height")), (photo, heat)


def test_upload(open_page, rose, find_violations):
    page = open_page()
    expect(page.get_by_text("15 MB each")).to_be_visible()
    expect(page.get_by_text("15 MB together")).to_be_hidden()
    assert not find_violations(page)
    choose(page, rose)
    expect_captions(page, "A red photo.")
    expect(page.locator("#status")).to_have_text("rose.jpg: A red photo.")
    word = page.locator(".word").nth(1)
    expect(word.locator(".heat")).to_have_css("opacity", "0")
    word.hover()
    heat_is_shown(page, word)
    expect(word.locator(".probability")).to_have_css("opacity", "1")
    expect(word.locator(".probability")).to_have_text("60 %")
    assert page.locator(".photo").evaluate("photo => photo.naturalWidth") == 90
    assert not find_violations(page)
    page.get_by_role("button", name="Use: one red photo").click()
    expect_captions(page, "One red photo.")


def test_dark_page_is_accessible(open_page, rose, find_violations):
    page = open_page(color_scheme="dark")
    choose(page, rose, {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
    expect(page.locator(".error")).to_have_count(1)
    expect_captions(page, "A red photo.")
    page.locator(".word").nth(1).focus()
    page.wait_for_timeout(300)  # until the colours have changed
    assert not find_violations(page)


def test_drop(open_page, rose):
    page = open_page()
    hand_over(page, "dragover", rose)
    expect(page.locator("body")).to_have_class("dragging")
    hand_over(page, "drop", rose)
    expect_captions(page, "A red photo.")
    expect(page.locator("body")).not_to_have_class("dragging")


def test_paste(open_page, rose):
    page = open_page()
    hand_over(page, "paste", rose)
    expect_captions(page, "A red photo.")


def test_several_photos_keep_their_order_and_the_newest_come_first(open_page, rose, leaf, picture, captioner):
    page = open_page()
    sky = {"name": "sky.jpg", "mimeType": "image/jpeg", "buffer": picture("blue")}
    choose(page, rose, leaf, sky)
    expect_captions(page, "A red photo.", "A green photo.", "A blue photo.")
    choose(page, leaf)
    expect_captions(page, "A green photo.", "A red photo.", "A green photo.", "A blue photo.")


@pytest.mark.parametrize("width", [400, 1300])
def test_heat_maps_lie_on_photos_of_every_shape(open_page, picture, width):
    page = open_page(viewport={"width": width, "height": 800})
    for number, size in enumerate([(120, 40), (40, 40), (40, 120), (1300, 2600), (2600, 1300)]):
        choose(page, {"name": "shape.jpg", "mimeType": "image/jpeg", "buffer": picture("red", size)})
        expect(page.locator("textarea")).to_have_count(number + 1)
        word = page.locator(".result").first.locator(".word").last
        word.focus()
        heat_is_shown(page, word)
        assert page.locator(".photo").first.bounding_box()["height"] <= 800


def test_example(open_page):
    page = open_page()
    page.get_by_role("button", name="Example: raccoon").click()
    expect(page.locator("textarea")).to_have_count(1)
    expect(page.locator(".result .name")).to_have_text("raccoon.jpg")


@pytest.mark.parametrize("kind", ["broken", "bomb", "heic"])
def test_files_that_cannot_be_captioned(open_page, kind, bomb, heic, rose):
    page = open_page()
    data = {"broken": b"no picture", "bomb": bomb, "heic": heic}[kind]
    choose(page, {"name": f"{kind}.jpg", "mimeType": "image/jpeg", "buffer": data}, rose)
    expect_captions(page, "A red photo.")
    expect(page.locator(".failed .error")).to_contain_text(f"{kind}.jpg")
    expect(page.locator(".pending")).to_have_count(0)


def test_large_file_is_not_even_sent(open_page, captioner, large):
    page = open_page()
    page.set_input_files("#photos", large)
    expect(page.locator(".failed .error")).to_have_text("The photo has more than 15 MB: send a smaller one.")
    assert not captioner.batches


def test_a_busy_server_is_asked_again(open_page, rose, monkeypatch):
    from webapp.batching import Busy
    from webapp.captioning import service, views

    answers = iter([Busy(), None])

    def result(photo):
        if error := next(answers):
            raise error
        return service.result(photo)

    page = open_page()
    monkeypatch.setattr(views, "result", result)
    choose(page, rose)
    expect_captions(page, "A red photo.")


def test_without_a_server(open_page, rose):
    page = open_page()
    page.context.set_offline(True)
    choose(page, rose)
    expect(page.locator(".failed .error")).to_have_text("The server cannot be reached: try again later.")


def test_without_a_model(open_page, rose, no_model):
    page = open_page()
    choose(page, rose)
    expect(page.locator("#results .error")).to_have_text("The server cannot load its model: /healthz says why.")
    expect(page.locator("#results")).not_to_contain_text("rose.jpg")


def test_a_proxy_that_answers_for_the_server(open_page, rose):
    page = open_page()
    page.route("**/", lambda route: route.fulfill(status=503, body="<h1>Unavailable</h1>", content_type="text/html"))
    choose(page, rose)
    expect(page.locator(".failed .error")).to_have_text("The server cannot do this now (503): try again later.")


def test_without_javascript(open_page, rose, large):
    page = open_page(java_script_enabled=False)
    expect(page.get_by_text("15 MB together")).to_be_visible()
    expect(page.get_by_text("15 MB each")).to_be_hidden()
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    choose(page, rose)
    page.get_by_role("button", name="Describe").click()
    expect_captions(page, "A red photo.")
    assert "A red photo." in page.title()
    word = page.locator(".word").nth(1)
    word.hover()
    heat_is_shown(page, word)
    page.set_input_files("#photos", large)
    page.get_by_role("button", name="Describe").click()
    expect(page.get_by_text("more than 15 MB")).to_be_visible()
    page.get_by_role("link").click()
    page.get_by_role("button", name="Example: raccoon").click()
    expect(page.locator(".result .name")).to_have_text("raccoon.jpg")


def test_phone(open_page, rose, leaf, find_violations):
    page = open_page(**PHONE)
    expect(page.get_by_text("Take a photo")).to_be_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    page.set_input_files("#camera", rose)
    expect_captions(page, "A red photo.")
    choose(page, leaf)
    expect_captions(page, "A green photo.", "A red photo.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    word = page.locator(".word").nth(2)
    word.tap()
    heat_is_shown(page, word)
    small = page.locator("button:visible, label.button:visible").evaluate_all(
        "all => all.filter((one) => one.getBoundingClientRect().height < 24).map((one) => one.outerHTML)"
    )
    assert not small
    assert not find_violations(page)


def test_keyboard_alone(open_page, rose, address):
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page.on("filechooser", lambda _: None)  # from now on, Chromium reports its dialog and does not show it
    page.keyboard.press("Tab")
    expect(page.locator("#photos")).to_be_focused()
    assert "solid" in page.locator("label[for=photos]").evaluate("label => getComputedStyle(label).outlineStyle")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(rose)
    expect_captions(page, "A red photo.")
    page.keyboard.press("Tab")
    expect(page.locator(".word").first).to_be_focused()
    heat_is_shown(page, page.locator(".word").first)
    for _ in page.locator(".word").all():
        page.keyboard.press("Tab")
    expect(page.locator("textarea")).to_be_focused()
    page.keyboard.press("Control+End")
    page.keyboard.type(" It is small.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_focused()
    assert page.evaluate("navigator.clipboard.readText()") == "A red photo. It is small."
    for _ in range(2):  # the two other captions
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect_captions(page, "The red photo.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".result .name").first).to_have_text("astronaut.jpg")


def test_documentation_works_without_another_server(open_page):
    page = open_page("/api/docs")
    expect(page.get_by_text("Caption a photo")).to_be_visible()


def test_reduced_motion(open_page, rose):
    page = open_page(reduced_motion="reduce")
    choose(page, rose)
    expect_captions(page, "A red photo.")
    expect(page.locator(".heat").first).to_have_css("transition-property", re.compile("none|all"))
