"""Whatever a picture file holds comes out upright and in RGB, or as one sentence; and never too many at a time."""

import io
import logging
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, TiffImagePlugin, features

from caption_generator import images
from caption_generator.common.errors import CaptionError
from caption_generator.common.pictures import FORMATS, SUFFIXES
from caption_generator.images import find_photos, find_pictures, load_augmented, load_batches, load_pixels, open_rgb


def corner(image: Image.Image) -> tuple[int, ...]:
    return image.getpixel((0, 0))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".webp", ".tif"])
def test_every_format_comes_out_in_rgb(tmp_path, suffix):
    Image.new("RGB", (20, 10), (200, 30, 60)).save(tmp_path / f"x{suffix}")
    image = open_rgb(tmp_path / f"x{suffix}")
    assert (image.mode, image.size) == ("RGB", (20, 10))
    np.testing.assert_allclose(corner(image), (200, 30, 60), atol=6)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (100, 255), (100, 100, 100)),
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
    ],
)
def test_transparency_is_laid_on_white_and_grey_becomes_rgb(tmp_path, mode, colour, expected):
    Image.new(mode, (4, 4), colour).save(tmp_path / "x.png")
    image = open_rgb(tmp_path / "x.png")
    assert (image.mode, corner(image)) == ("RGB", expected)


def palette_picture() -> Image.Image:
    """Left half number 0, a red, and right half number 1, a blue."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([250, 10, 10, 10, 10, 250])
    image.paste(0, (0, 0, 2, 4))
    return image


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_is_looked_up(tmp_path, suffix):
    palette_picture().save(tmp_path / f"x{suffix}")
    image = open_rgb(tmp_path / f"x{suffix}")
    assert [image.getpixel((x, 0)) for x in (0, 3)] == [(250, 10, 10), (10, 10, 250)]


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palettes_transparent_colour_is_white(tmp_path, suffix):
    palette_picture().save(tmp_path / f"x{suffix}", transparency=0)
    image = open_rgb(tmp_path / f"x{suffix}")
    assert [image.getpixel((x, 0)) for x in (0, 3)] == [(255, 255, 255), (10, 10, 250)]


def test_the_transparent_colour_of_an_rgb_png_is_white(tmp_path):
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "x.png", transparency=(1, 2, 3))
    assert corner(open_rgb(tmp_path / "x.png")) == (255, 255, 255)


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK").save(tmp_path / "x.jpg")
    for image in (open_rgb(tmp_path / "x.jpg"), Image.fromarray(load_pixels(tmp_path / "x.jpg", 8))):
        assert image.mode == "RGB"
        np.testing.assert_allclose(corner(image), (200, 30, 60), atol=8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_to_eight_not_cut_off(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / f"x{suffix}")
    pixels = np.asarray(open_rgb(tmp_path / f"x{suffix}"))
    np.testing.assert_allclose(pixels[0, :, 0], np.arange(256), atol=1)
    assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_fewer_bits_kept_in_sixteen_are_not_black(tmp_path, bits, suffix):
    ramp = np.linspace(0, 2**bits - 1, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / f"x{suffix}")
    np.testing.assert_allclose(np.asarray(open_rgb(tmp_path / f"x{suffix}"))[0, :, 0], np.arange(256), atol=1)


@pytest.mark.parametrize("factor", [256, 257])
def test_a_dark_picture_of_eight_bits_that_were_stretched_to_sixteen_stays_dark(tmp_path, factor):
    Image.fromarray(np.full((4, 4), 9 * factor, np.uint16)).save(tmp_path / "x.png")
    assert corner(open_rgb(tmp_path / "x.png"))[0] in (8, 9)


def test_a_float_tiff_from_zero_to_one_is_not_black(tmp_path):
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, 0)
    ramp[1, :3] = np.nan, np.inf, -1
    Image.fromarray(ramp).save(tmp_path / "x.tif")
    pixels = np.asarray(open_rgb(tmp_path / "x.tif"))
    np.testing.assert_allclose(pixels[0, :, 0], np.arange(256), atol=1)
    assert pixels[1, :3, 0].tolist() == [0, 255, 0]


def test_a_float_tiff_of_eight_bit_values_keeps_them(tmp_path):
    Image.fromarray(np.full((4, 4), 130.0, np.float32)).save(tmp_path / "x.tif")
    assert corner(open_rgb(tmp_path / "x.tif")) == (130, 130, 130)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_come_out_upright(tmp_path, orientation):
    upright = np.zeros((40, 24, 3), np.uint8)
    upright[:8, :8], upright[:8, -8:] = (250, 0, 0), (0, 250, 0)  # red at the top left, green at the top right
    upright[-8:, :8] = (0, 0, 250)  # blue at the bottom left
    image = Image.fromarray(upright)
    as_the_camera_lay = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image.transpose(as_the_camera_lay[orientation]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.jpg", quality=100, subsampling=0, exif=exif)
    np.testing.assert_allclose(np.asarray(open_rgb(tmp_path / "x.jpg"), int), upright, atol=40)
    assert open_rgb(tmp_path / "x.jpg").size == (24, 40)
    squashed = load_pixels(tmp_path / "x.jpg", 8)  # the path that features take
    assert [squashed[y, x].argmax() for y, x in ((0, 0), (0, -1), (-1, 0))] == [0, 1, 2]


def odd_exif(orientation: int, where: bytes = b"Exif\0\0") -> bytes:
    """A block that can be read, and not be written again: XResolution, which has no sign, is -1/3."""
    entries = struct.pack("<HHLHxx", 0x0112, 3, 1, orientation) + struct.pack("<HHLL", 0x011A, 10, 1, 38)
    return where + b"II*\0" + struct.pack("<LH", 8, 2) + entries + struct.pack("<Lll", 0, -1, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_odd_exif_costs_no_photo_and_its_orientation_counts(tmp_path, suffix):
    image = Image.new("RGB", (24, 8), "red")
    image.paste("blue", (12, 0, 24, 8))
    image.save(tmp_path / f"x{suffix}", exif=odd_exif(6))
    for found in (open_rgb(tmp_path / f"x{suffix}"), Image.fromarray(load_pixels(tmp_path / f"x{suffix}", 16))):
        assert found.getpixel((found.width // 2, 1))[0] > 200
        assert found.getpixel((found.width // 2, found.height - 2))[2] > 200
    assert open_rgb(tmp_path / f"x{suffix}").size == (8, 24)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_odd_tags_of_a_tiff_cost_no_photo_and_its_orientation_counts(tmp_path, compression, capfd):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    tags.tagtype[0x8825] = 4
    tags[0x8825] = 99_999_999  # the place of a block on GPS, past the file's end
    tags.tagtype[65_000] = 2
    tags[65_000] = "libtiff does not know this tag and says so"
    image = Image.new("RGB", (24, 8), "red")
    image.paste("blue", (12, 0, 24, 8))
    image.save(tmp_path / "x.tif", tiffinfo=tags, compression=compression)
    found = open_rgb(tmp_path / "x.tif")
    assert (found.size, found.getpixel((4, 2)), found.getpixel((4, 22))) == ((8, 24), (255, 0, 0), (0, 0, 255))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0" + struct.pack("<L", 1 << 30),
        b"Exif\0\0MM\0*" + b"\xff" * 40,
        odd_exif(0),
        odd_exif(9),
        odd_exif(6).replace(b"\x12\x01\x03\0", b"\x12\x01\x02\0"),  # text
    ],
)
def test_exif_that_cannot_be_read_is_ignored(tmp_path, exif, capfd):
    Image.new("RGB", (24, 8), "red").save(tmp_path / "x.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_rgb(tmp_path / "x.jpg").size == (24, 8)
    assert capfd.readouterr().err == ""


def test_the_orientation_of_odd_exif_of_others_is_read(shared):
    assert open_rgb(shared / "cases" / "exif" / "signed_rational.jpg").width > 0


def test_pillows_warnings_go_nowhere_and_those_of_others_stay(tmp_path, monkeypatch, capfd):
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # from there on it warns, and refuses twice as many
    before = (list(warnings.filters), logging.getLogger("PIL").propagate, logging.getLogger("PIL").handlers[:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(load_batches([tmp_path / "x.png"] * 20, 8, batch_size=4))
        open_rgb(tmp_path / "x.png")
        with images._pillow_quiet, pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
    with images._pillow_quiet:
        logging.getLogger("PIL.TiffImagePlugin").error("an odd tag")
    assert (list(warnings.filters), logging.getLogger("PIL").propagate, logging.getLogger("PIL").handlers[:]) == before
    assert capfd.readouterr().err == ""


def test_importing_the_module_leaves_pythons_warnings_as_they_were():
    code = "import caption_generator.images, warnings; from PIL.Image import DecompressionBombWarning as bomb; "
    code += "assert not [found for found in warnings.filters if found[2] is bomb]"
    subprocess.run([sys.executable, "-c", code], cwd=Path(images.__file__).parents[1], check=True)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "white")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert corner(open_rgb(tmp_path / "x.gif")) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (5000, 30)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_extreme_shapes_are_squashed_to_the_square(tmp_path, size, suffix):
    Image.new("RGB", size, (90, 90, 90)).save(tmp_path / f"x{suffix}")
    assert open_rgb(tmp_path / f"x{suffix}").size == size
    pixels = load_pixels(tmp_path / f"x{suffix}", 16)
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_allclose(pixels, 90, atol=2)
    augmented = load_augmented(tmp_path / f"x{suffix}", 16, seed=1)
    assert (augmented.shape, augmented.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_allclose(augmented, augmented[0, 0, 0], atol=3)  # brighter or darker, and still grey


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (200, 30, 60), (200, 30, 60)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (100, 255), (100, 100, 100)),
        ("L", 70, (70, 70, 70)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 40_000, (155, 155, 155)),
    ],
)
def test_a_large_picture_shrinks_strip_by_strip_and_is_the_same(tmp_path, monkeypatch, mode, colour, expected):
    image = Image.new(mode, (301, 203), colour)
    image.paste(0, (150, 0, 301, 203))
    image.paste(0, (0, 100, 301, 203))
    image.save(tmp_path / "x.png")
    whole, small = open_rgb(tmp_path / "x.png"), load_pixels(tmp_path / "x.png", 16).astype(int)
    monkeypatch.setattr(images, "STRIP", 301 * 10)
    assert open_rgb(tmp_path / "x.png").tobytes() == whole.tobytes()
    monkeypatch.setattr(images, "LARGE", 1)
    np.testing.assert_allclose(load_pixels(tmp_path / "x.png", 16)[2:-2, 2:-2], small[2:-2, 2:-2], atol=40)
    assert load_pixels(tmp_path / "x.png", 16)[3, 3].tolist() == list(expected)
    assert corner(whole) == expected


def test_threads_share_a_limit_on_what_is_being_decoded(monkeypatch):
    monkeypatch.setattr(images, "BYTES_IN_FLIGHT", 100)
    together, most, lock = [], [], threading.Lock()

    def decode(size: int) -> None:
        with images._in_flight(size):
            with lock:
                together.append(size)
                most.append(list(together))
            threading.Event().wait(0.01)
            with lock:
                together.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [40, 60, 500, 10, 90, 500, 30, 30, 30, 30]))
    assert all(sum(sizes) <= 100 or len(sizes) == 1 for sizes in most), most
    assert max(map(len, most)) >= 2


MEASURE = """
import sys
from pathlib import Path
from caption_generator import images
from caption_generator.images import load_batches
images.BYTES_IN_FLIGHT, images.LARGE = 70_000_000, 1_000_000
[batch] = load_batches(sys.argv[1:], 224)
assert len(batch.pixels) == 6, batch.errors
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(peak.split()[1])
"""


# Not `ru_maxrss`, which a process inherits from the one that started it.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of this process alone")
def test_large_pictures_take_the_memory_of_one(tmp_path):
    Image.new("RGBA", (4000, 4000), (9, 9, 9, 128)).save(tmp_path / "a.png", compress_level=1)  # 64 MB decoded
    Image.new("I;16", (4000, 4000), 40_000).save(tmp_path / "b.png", compress_level=1)
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")] * 3
    command = [sys.executable, "-c", MEASURE, *paths]
    done = subprocess.run(command, cwd=Path(images.__file__).parents[1], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 330_000  # kilobytes; it was a million


def test_a_large_jpeg_decoded_small_is_the_same_picture(tmp_path):
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    Image.fromarray(np.stack([ramp[None].repeat(800, 0)] * 3, -1)).save(tmp_path / "x.jpg", quality=95)
    exact = np.asarray(open_rgb(tmp_path / "x.jpg").resize((32, 32), Image.Resampling.BILINEAR), int)
    np.testing.assert_allclose(load_pixels(tmp_path / "x.jpg", 32), exact, atol=4)


def ramps(path) -> None:
    """Write a picture that grows redder to the right and greener downwards."""
    right, down = np.meshgrid(np.linspace(40, 200, 64), np.linspace(40, 200, 48))
    Image.fromarray(np.stack([right, down, np.full_like(right, 90)], -1).astype(np.uint8)).save(path)


def test_an_augmented_picture_depends_on_its_name_and_the_seed_alone(tmp_path):
    for name in ("x.png", "y.png", "elsewhere/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        ramps(tmp_path / name)
    first = load_augmented(tmp_path / "x.png", 32, seed=1)
    assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)
    np.random.seed(9)  # what others draw must not matter
    np.testing.assert_array_equal(load_augmented(str(tmp_path / "x.png"), 32, seed=1), first)
    np.testing.assert_array_equal(load_augmented(tmp_path / "elsewhere" / "x.png", 32, seed=1), first)
    for other in (("x.png", 2), ("y.png", 1)):
        assert (load_augmented(tmp_path / other[0], 32, seed=other[1]) != first).mean() > 0.1
    assert (load_pixels(tmp_path / "x.png", 32) != first).mean() > 0.1


def test_about_half_of_augmented_pictures_are_mirrored_and_none_is_upside_down(tmp_path):
    ramps(tmp_path / "x.png")
    mirrored = 0
    for seed in range(200):
        pixels = load_augmented(tmp_path / "x.png", 8, seed).astype(int)
        mirrored += pixels[4, 0, 0] > pixels[4, -1, 0]
        assert pixels[0, 4, 1] < pixels[-1, 4, 1]
    assert 75 < mirrored < 125


@pytest.mark.parametrize("axis", [0, 1])
def test_three_quarters_of_each_side_at_least_remain(tmp_path, axis):
    stripes = np.tile(np.repeat([60, 180], 8), 16)[:, None].repeat(256, 1).astype(np.uint8)  # 32, across `axis`
    Image.fromarray(stripes if axis == 0 else stripes.T).convert("RGB").save(tmp_path / "x.png")
    seen = []
    for seed in range(60):
        line = load_augmented(tmp_path / "x.png", 256, seed)[..., 0].take(128, axis=1 - axis).astype(int)
        bright = line > (line.min() + line.max()) / 2
        seen.append(1 + np.count_nonzero(bright[1:] != bright[:-1]))
    assert 24 <= min(seen) <= 26
    assert 31 <= max(seen) <= 32


def test_colours_are_changed_by_a_quarter_at_most(tmp_path):
    Image.new("RGB", (8, 8), (100, 100, 100)).save(tmp_path / "x.png")
    greys = {int(load_augmented(tmp_path / "x.png", 8, seed)[0, 0, 0]) for seed in range(100)}
    assert 74 <= min(greys) <= 80
    assert 120 <= max(greys) <= 126


def test_batches_are_read_by_the_function_that_the_caller_names(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        ramps(path)
    paths.insert(1, tmp_path / "missing.png")
    first, second = load_batches(paths, 8, batch_size=2, load=partial(load_augmented, seed=5))
    assert first.paths == paths[:1] and "missing.png" in first.errors[0]
    found = np.concatenate([first.pixels, second.pixels])
    np.testing.assert_array_equal(found, [load_augmented(path, 8, 5) for path in (paths[0], *paths[2:])])


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def broken_files(folder) -> dict[str, str]:
    """File name to what the complaint must say of it."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "header.jpg").write_bytes(whole[:30])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("I am not a photo")
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (folder / "folder.jpg").mkdir()
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "round.jpg").symlink_to("round.jpg")
    os.mkfifo(folder / "fifo.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "drawing.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    (folder / "phone.HEIC").write_bytes(b"\0\0\0\x24ftypheic" + b"\0" * 80)
    (folder / "phone.jpg").write_bytes(b"\0\0\0\x24ftypmif1" + b"\0" * 80)
    (folder / "new.jxl").write_bytes(b"\xff\x0a" + b"\0" * 80)
    (folder / "camera.NEF").write_bytes(b"II*\0" + b"\0" * 80)
    return {
        "gone.jpg": "is a link to nowhere.jpg, which does not exist",
        "round.jpg": "symbolic links",
        "fifo.jpg": "not a regular file",
        "device.jpg": "not a regular file",
        "drawing.jpg": "not a known picture format",
        "phone.HEIC": "is HEIC, which is not read here: install pillow-heif",
        "phone.jpg": "is HEIC, which is not read here: install pillow-heif",
        "new.jxl": "is JPEG XL",
        "camera.NEF": "camera's raw data",
        "truncated.jpg": "truncated",
        "header.jpg": "cannot be read as a picture",
        "empty.jpg": "not a known picture format",
        "text.jpg": "not a known picture format",
        "bomb.png": "pixels",
        "folder.jpg": "directory",
        "missing.jpg": "does not exist",
    }


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(
    "read",
    [open_rgb, lambda path: load_pixels(path, 8), lambda path: load_augmented(path, 8, seed=1)],
    ids=["open_rgb", "load_pixels", "load_augmented"],
)
def test_each_broken_file_is_one_sentence_that_names_it(tmp_path, read, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    for name, complaint in broken_files(tmp_path).items():
        with pytest.raises(CaptionError) as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert complaint in str(error.value)
        assert "\n" not in str(error.value)


def numbered(folder, count: int) -> list:
    """PNGs whose every pixel is their number."""
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 8), (number, number, number)).save(path)
    return paths


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (11, [4, 4, 3])])
def test_batches_hold_every_picture_once_and_in_order(tmp_path, count, sizes):
    paths = numbered(tmp_path, count)
    batches = list(load_batches(paths, 8, batch_size=4))
    assert [len(batch.pixels) for batch in batches] == sizes
    assert [path for batch in batches for path in batch.paths] == paths
    assert [int(pixels[0, 0, 0]) for batch in batches for pixels in batch.pixels] == list(range(count))
    assert all(batch.pixels.dtype == np.uint8 and batch.pixels.shape[1:] == (8, 8, 3) for batch in batches)


def test_a_broken_picture_costs_its_own_place_only(tmp_path):
    paths = numbered(tmp_path, 8)
    paths[1].write_bytes(b"broken")
    for path in paths[4:]:
        path.unlink()
    first, second = load_batches(paths, 8, batch_size=4)
    assert first.paths == [paths[0], paths[2], paths[3]]
    assert first.pixels[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert [path for path, _ in first.outcomes] == paths[:4]
    assert len(first.errors) == 1 and str(paths[1]) in first.errors[0]
    assert second.paths == [] and len(second.errors) == 4
    assert second.pixels.shape == (0, 8, 8, 3)


def test_at_most_one_batch_is_decoded_ahead_of_the_callers(tmp_path):
    paths = numbered(tmp_path, 40)
    decoded = []

    def counting(path, size):
        decoded.append(path)
        return load_pixels(path, size)

    for number, batch in enumerate(load_batches(paths, 8, batch_size=4, load=counting), 1):
        assert len(batch.paths) == 4
        assert len(decoded) <= 4 * (number + 1)
    assert sorted(decoded) == paths


def test_the_next_batch_is_decoded_while_the_caller_works(tmp_path):
    paths = numbered(tmp_path, 8)
    ahead = threading.Event()

    def noticing(path, size):
        if path == paths[4]:
            ahead.set()
        return load_pixels(path, size)

    batches = load_batches(paths, 8, batch_size=4, load=noticing)
    next(batches)
    assert ahead.wait(timeout=30)
    batches.close()


def test_reading_in_threads_leaves_pythons_warnings_as_they_were(tmp_path):
    paths = numbered(tmp_path, 60)
    before = list(warnings.filters)
    list(load_batches(paths, 8, batch_size=20))
    assert list(warnings.filters) == before


def test_files_folders_and_globs_are_found_each_once(tmp_path):
    for name in ("a.jpg", "b.PNG", "c.txt", "sub/d.webp", "sub/deep/e.tiff", "sub/._d.webp", "z/f.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / "nothing").mkdir()
    a = str(tmp_path / "a.jpg")
    found, errors = find_pictures([a, str(tmp_path / "sub"), str(tmp_path / "*.jpg"), f"{tmp_path}/z", a])
    assert errors == []
    names = ["a.jpg", "sub/d.webp", "sub/deep/e.tiff", "z/f.gif"]
    assert [p for p in found if p.name != "album.jpg"] == [tmp_path / name for name in names]

    everything, _ = find_pictures([str(tmp_path)])
    assert everything == sorted(tmp_path / name for name in [*names, "b.PNG"])
    assert find_pictures([f"{tmp_path}/**/*.webp"])[0] == [tmp_path / "sub/d.webp"]


Image.init()
WRITTEN = [name for name in FORMATS if name in Image.SAVE and name in Image.OPEN]
WRITTEN = [name for name in WRITTEN if name != "AVIF" or features.check("avif")]


@pytest.mark.filterwarnings("ignore:IM image format is deprecated")
@pytest.mark.parametrize("name", WRITTEN)
def test_what_pillow_opens_here_is_found_in_a_folder_and_read(tmp_path, name):
    mode = {"MSP": "1", "XBM": "1", "BLP": "P"}.get(name, "RGB")
    for suffix in FORMATS[name]:
        Image.new(mode, (32, 32)).save(tmp_path / f"x{suffix.upper()}", format=name)
    found, errors = find_pictures([str(tmp_path)])
    assert (len(found), errors) == (len(FORMATS[name]), [])
    for path in found:
        assert open_rgb(path).mode == "RGB"


def test_every_suffix_of_a_format_that_is_read_is_known():
    known = {suffix for suffix, name in Image.EXTENSION.items() if name in FORMATS}
    assert known <= SUFFIXES


def test_a_phones_folder_is_found_whole(tmp_path):
    names = ["IMG_0001.JPG", "IMG_0002.avif", "IMG_0003.HEIC", "download.jfif", "gone.png", "pipe.jpg", "z.nef"]
    for name in names:
        if name.startswith("gone"):
            (tmp_path / name).symlink_to("nowhere")
        elif name.startswith("pipe"):
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).touch()
    for hidden in (".thumbnails/x.jpg", "sub/.cache/deep/y.jpg", "sub/.z.jpg"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).touch()
    (tmp_path / "round").symlink_to(tmp_path)
    assert find_pictures([str(tmp_path)]) == ([tmp_path / name for name in names], [])


def test_damaged_heic_is_damaged_where_heic_is_read(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x24ftypheic" + b"\0" * 80)
    monkeypatch.setattr("caption_generator.images._formats", lambda: ["JPEG", "HEIF"])
    with pytest.raises(CaptionError, match=r"a\.heic cannot be read as a picture"):
        open_rgb(tmp_path / "a.heic")


def test_a_folder_of_heic_alone_is_named_with_what_reads_it(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x24ftypheic" + b"\0" * 80)
    [path], errors = find_pictures([str(tmp_path)])
    assert errors == []
    [batch] = load_batches([path], 8)
    assert "a.HEIC is HEIC" in batch.errors[0] and "pillow-heif" in batch.errors[0]


def test_a_quoted_glob_that_matches_folders_means_what_they_hold(tmp_path):
    for name in ("2024/a.jpg", "2024/deep/b.png", "2025/c.jpg", "2025/notes.txt", "2026.jpg", "2027/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, errors = find_pictures([f"{tmp_path}/20*"])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "2024/a.jpg",
        "2024/deep/b.png",
        "2025/c.jpg",
        "2026.jpg",
    ]
    assert errors == []
    assert len(find_pictures([f"{tmp_path}/2027*"])[1]) == 1


def test_a_folder_that_may_not_be_looked_into_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.jpg").touch()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, [error] = find_pictures([str(tmp_path)])
    assert found == [tmp_path / "a.jpg"]
    assert f"cannot look into {tmp_path}/sub (Permission denied)" in error


def test_a_match_of_a_glob_that_may_not_be_looked_at_costs_only_itself(tmp_path, monkeypatch):
    for name in ("locked/a.jpg", "open/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    is_dir = Path.is_dir

    def refuse(path):
        if path.parent.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    found, errors = find_pictures([f"{tmp_path}/*/*.jpg"])
    assert (found, errors) == ([tmp_path / "locked/a.jpg", tmp_path / "open/b.jpg"], [])


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").touch()
    found, [error] = find_pictures([""])
    assert found == []
    assert "a name is empty" in error


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(tmp_path):
    for name in ("dog[1].jpg", "dog1.jpg", "what?.jpg"):
        (tmp_path / name).touch()
    for name in ("dog[1].jpg", "what?.jpg"):
        assert find_pictures([str(tmp_path / name)]) == ([tmp_path / name], [])
    assert find_pictures([str(tmp_path / "dog[0-9].jpg")]) == ([tmp_path / "dog1.jpg"], [])


def test_a_name_that_no_file_can_have_is_left_to_be_refused_with_the_photos():
    name = "a" * 300 + ".jpg"
    [path], errors = find_pictures([name])
    assert (str(path), errors) == (name, [])
    with pytest.raises(CaptionError, match=r"aaa\.jpg"):
        open_rgb(path)


def test_a_folder_or_glob_without_pictures_is_one_sentence_that_names_it(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "a.jpg").touch()
    empty, no_match = str(tmp_path / "empty"), str(tmp_path / "*.png")
    (tmp_path / "empty").mkdir()
    found, errors = find_pictures([empty, str(tmp_path / "a.jpg"), no_match])
    assert found == [tmp_path / "a.jpg"]
    assert errors == [f"{empty} holds no pictures: check the name.", f"{no_match} matches no file: check the name."]


def test_an_address_on_the_web_is_named_as_it_was_given():
    found, [error] = find_pictures(["https://example.org/dog.jpg"])
    assert found == []
    assert error.startswith("https://example.org/dog.jpg is an address on the web: download the photo")


def test_a_missing_file_is_kept_for_the_reader_to_complain_of(tmp_path):
    assert find_pictures([str(tmp_path / "missing.jpg")]) == ([tmp_path / "missing.jpg"], [])
    assert find_pictures([]) == ([], [])


def test_an_open_file_is_read_and_named_by_its_text(tmp_path):
    class Upload(io.BytesIO):
        def __str__(self) -> str:
            return "upload.png"

    Image.new("RGB", (20, 10), (200, 30, 60)).save(tmp_path / "x.png")
    upload = Upload((tmp_path / "x.png").read_bytes())
    np.testing.assert_array_equal(load_pixels(upload, 8), load_pixels(tmp_path / "x.png", 8))
    with pytest.raises(CaptionError, match=r"^upload.png cannot be read"):
        open_rgb(Upload(b"no picture"))
    with pytest.raises(CaptionError, match=r"^upload.png is HEIC"):
        open_rgb(Upload(b"\0\0\0\x18ftypheic" + bytes(500)))


def test_photos_are_found_in_the_folder_that_has_them(tmp_path):
    for folder, name in (("one", "a.jpg"), ("two", "b.jpg")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    folders = [tmp_path / "one", tmp_path / "two"]
    expected = [tmp_path / "two" / "b.jpg", tmp_path / "one" / "a.jpg", tmp_path / "two" / "missing.jpg"]
    assert find_photos(folders, ["b.jpg", "a.jpg", "missing.jpg"]) == expected
    assert find_photos(str(folders[0]), ["x.jpg"]) == [folders[0] / "x.jpg"]
