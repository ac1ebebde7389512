"""Makes screenshot.png, the picture of the page in the README: python -m webapp.screenshot

It needs Playwright and Chromium (`CHROMIUM` names another than /usr/bin/chromium).
"""

import argparse
import io
import os
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from webapp.local_server import REPOSITORY, local_server

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# Without these, Chromium looks for updates and for its maker's servers.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Take a picture of the page with an example photo.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "webapp" / "screenshot.png")
    parser.add_argument("--example", default="boats.jpg")
    parser.add_argument("--word", default="boat", help="the word whose heat map is shown")
    parser.add_argument("--address", help="a server that runs already")
    parser.add_argument("--size", default="1200x1180", help="width and height of the window")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    if options.address:
        take(options.address, options)
    else:
        with local_server() as (address, _):
            take(address, options)


def take(address: str, options: argparse.Namespace) -> None:
    """Caption an example, show a word's heat map, and save the picture with 256 colours."""
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
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(500)
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
