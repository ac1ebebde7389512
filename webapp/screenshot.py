"""Makes screenshot.jpg, the picture of the page in the README: python -m webapp.screenshot

It needs Playwright and Chromium (`CHROMIUM` names another than /usr/bin/chromium).
"""

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from webapp.chromium import CHROMIUM, QUIET
from webapp.local_server import REPOSITORY, local_server

QUALITY = 80  # of the JPEG


def main() -> None:
    parser = argparse.ArgumentParser(description="Take a picture of the page with an example photo.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "webapp" / "screenshot.jpg")
    parser.add_argument("--example", default="coffee.jpg")
    parser.add_argument("--word", default="coffee", help="the word whose heat map is shown")
    parser.add_argument("--address", help="a server that runs already")
    parser.add_argument("--size", default="1100x900", help="width and height of the window")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    if options.address:
        take(options.address, options)
    else:
        with local_server() as (address, _):
            take(address, options)


def take(address: str, options: argparse.Namespace) -> None:
    """Caption an example, show a word's heat map, and save the picture."""
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=QUIET,
            viewport={"width": width, "height": height},
            color_scheme="dark" if options.dark else "light",
            reduced_motion="reduce",
            has_touch=width < 600,
            is_mobile=width < 600,
        )
        page = browser.new_page()
        page.goto(address)
        page.click(f"button[value='{options.example}']")
        page.wait_for_selector(".caption")
        word = page.locator(".word", has_text=options.word)
        if word.count():
            word.first.focus()
        page.locator(".examples img").last.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")  # the last examples are loaded when they come into view
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        browser.close()
    picture.convert("RGB").save(options.out, quality=QUALITY, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
