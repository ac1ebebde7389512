"""Pictures as people have them, and as nobody should: some hundreds of files, made anew from a seed."""

import contextlib
import io
import os
import pickle
import random
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

FORMATS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "TIFF": "tif"}
EXIF_ORIENTATION = 0x0112


def photo(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """A picture with colours, edges and noise, not the same after any turn."""
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    ramp = np.linspace(0, 200, width)[None, :, None] * np.array([1.0, 0.6, 0.2])
    pixels = (noise + ramp).clip(0, 255).astype(np.uint8)
    pixels[height // 8 : height // 3, width // 8 : width // 4] = (250, 20, 20)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def flip(content: bytes, seed: int, most: int = 8) -> bytes:
    """The same bytes with one to `most` bits flipped."""
    draw, flipped = random.Random(seed), bytearray(content)
    for _ in range(draw.randint(1, most)):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def places(size: int) -> list[int]:
    """Where to cut a file: after its first bytes, at every tenth, and before its last bytes."""
    cuts = {0, 1, 2, 3, 8, 12, 20, 40, *(size * tenth // 10 for tenth in range(1, 10)), size - 100, size - 2, size - 1}
    return sorted(cut for cut in cuts if 0 <= cut < size)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, content: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(content, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def make_corpus(folder: Path, seeds: int = 100, bombs: bool = True) -> list[Path]:
    """Write files into `folder`.

    Args:
        seeds: how many files of each format have bits flipped.
        bombs: whether some unfold to hundreds of megabytes, which takes a while to make.

    Returns:
        The paths, each once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []

    def add(name: str | bytes, content: bytes) -> None:
        path = folder / os.fsdecode(name)
        path.write_bytes(content)
        paths.append(path)

    good = {kind: encode(photo(), kind) for kind in FORMATS}
    for kind, suffix in FORMATS.items():
        content = good[kind]
        add(f"good.{suffix}", content)
        for cut in places(len(content)):
            add(f"cut_{cut}.{suffix}", content[:cut])
        for seed in range(seeds):
            add(f"flipped_{seed}.{suffix}", flip(content, seed))
        add(f"bytes_behind.{suffix}", content + bytes(1000))
        add(f"bytes_before.{suffix}", b"\n" + content)
        for other in FORMATS.values():
            if other != suffix:
                add(f"is_{suffix}.{other}", content)
    _add_foreign(add)
    _add_modes(add)
    _add_sizes(add)
    if bombs:
        _add_bombs(add)
    _add_metadata(add)
    _add_names(add, good["JPEG"])
    paths += _special_files(folder, good["JPEG"])
    return paths


Add = Callable[[str | bytes, bytes], None]


def _add_foreign(add: Add) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped.jpg", "x")
    for number, content in enumerate(
        (
            b"",
            b"\0",
            bytes(1000),
            b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
            b"just some text\n",
            b'{"error": "not found"}',
            b"%PDF-1.4\n%\xe2\xe3\n1 0 obj",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(w) {print} loop\n",
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            b"\0\0\0\x20ftypheic" + bytes(24),
            b"\0\0\0\x20ftypavif" + bytes(24),
            b"\0\0\0\x20ftypisom" + bytes(24),
            b"\xff\x0a" + bytes(24),
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            pickle.dumps({"a": 1}),
            archive.getvalue(),
            b"\x89HDF\r\n\x1a\n" + bytes(100),
            b"GIF89a" + b"\xff" * 7,
            b"\xff\xd8\xff\xe0" + b"\xff" * 100,
            b"BM" + b"\xff" * 60,
            b"II*\0" + b"\xff" * 60,
            b"8BPS\0\1" + b"\xff" * 30,
            b"P6 99999999 99999999 255\n",
            b"qoif" + b"\xff" * 20,
        )
    ):
        for suffix in ("jpg", "png"):
            add(f"foreign_{number}.{suffix}", content)


def _add_modes(add: Add) -> None:
    image = photo()
    grey = image.convert("L")
    deep = np.asarray(grey, np.uint16) * 257
    alpha = image.copy()
    alpha.putalpha(grey)
    for name, picture, kind, options in (
        ("grey", grey, "JPEG", {}),
        ("cmyk", image.convert("CMYK"), "JPEG", {}),
        ("progressive", image, "JPEG", {"progressive": True}),
        ("cmyk", image.convert("CMYK"), "TIFF", {}),
        ("lab", image.convert("LAB"), "TIFF", {}),
        ("bilevel", image.convert("1"), "TIFF", {"compression": "group4"}),
        ("lzw", image, "TIFF", {"compression": "tiff_lzw"}),
        ("jpeg", image, "TIFF", {"compression": "jpeg"}),
        ("floats", Image.fromarray(np.asarray(grey, np.float32) / 255), "TIFF", {}),
        ("not_a_number", Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF", {}),
        ("deep", Image.fromarray(deep), "TIFF", {}),
        ("deep", Image.fromarray(deep), "PNG", {}),
        ("whole", Image.fromarray(deep.astype(np.int32)), "TIFF", {}),
        ("grey", grey, "PNG", {}),
        ("la", alpha.convert("LA"), "PNG", {}),
        ("rgba", alpha, "PNG", {}),
        ("rgba", alpha, "WEBP", {}),
        ("rgba", alpha, "TIFF", {}),
        ("bilevel", image.convert("1"), "PNG", {}),
        ("palette", image.convert("P"), "PNG", {}),
        ("see_through", image.convert("P"), "PNG", {"transparency": 0}),
        ("lossless", image, "WEBP", {"lossless": True}),
        ("palette", image.convert("P"), "BMP", {}),
        ("plain", image, "BMP", {}),
        ("plain", image, "PPM", {}),
        ("plain", image, "TGA", {}),
        ("plain", image, "PCX", {}),
        ("plain", image, "SGI", {}),
        ("plain", image, "ICO", {}),
        ("plain", image, "JPEG2000", {}),
        ("plain", image, "DDS", {}),
        ("animated", image, "GIF", {"save_all": True, "append_images": [photo(seed=1)] * 20}),
        ("animated", image, "PNG", {"save_all": True, "append_images": [photo(seed=1)] * 5}),
        ("animated", image, "WEBP", {"save_all": True, "append_images": [photo(seed=1)] * 5}),
        ("pages", image, "TIFF", {"save_all": True, "append_images": [photo(seed=1)] * 5}),
    ):
        with contextlib.suppress(OSError, KeyError):  # a format that this Pillow lacks
            add(f"mode_{name}_{kind}.{FORMATS.get(kind, kind.lower())}", encode(picture, kind, **options))


def _add_sizes(add: Add) -> None:
    for width, height in ((1, 1), (1, 2), (3, 1), (1, 20_000), (20_000, 1), (7, 5000)):
        for kind in ("JPEG", "PNG", "WEBP"):
            if max(width, height) < 16_384 or kind != "WEBP":
                add(f"size_{width}x{height}.{FORMATS[kind]}", encode(photo(9, 9).resize((width, height)), kind))
    for width, height in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (0, 0), (1, 0)):
        add(f"header_{width}x{height}.png", png(width, height, 8, 2, b"\0" * 1000))
    add(
        "bomb.gif",
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + b"\xff" * 4,
    )
    header = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    add("bomb.bmp", header + bytes(100))
    tags = [(256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(278, 4, 1, 60_000), (279, 4, 1, 2**32 - 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    add("bomb.tif", b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))
    loop = struct.pack("<IH", 8, 1) + struct.pack("<HHII", 256, 4, 1, 10) + struct.pack("<I", 8)
    add("loop.tif", b"II*\0" + loop)


def _add_bombs(add: Add) -> None:
    rows = bytes(1 + 13_000 * 4) * 13_000
    add("bomb_rgba.png", png(13_000, 13_000, 8, 6, rows))
    add("bomb_deep.png", png(13_000, 13_000, 16, 0, rows[: (1 + 26_000) * 13_000]))
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 1))
    add("bomb_text.png", png(4, 4, 8, 2, bytes(52))[:33] + text + png(4, 4, 8, 2, bytes(52))[33:])


def _add_metadata(add: Add) -> None:
    image = photo()
    turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes each orientation
    for orientation in (*range(1, 9), 0, 9, 65_535):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        turn = turns.get(orientation)
        turned = image if turn is None else image.transpose(Image.Transpose(turn))
        add(f"orientation_{orientation}.png", encode(turned, "PNG", exif=exif))
    for number, exif in enumerate(
        (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 60)
    ):
        add(f"exif_{number}.jpg", encode(image, "JPEG", exif=exif))
        add(f"exif_{number}.webp", encode(image, "WEBP", exif=exif))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, icc in (
        ("srgb", profile),
        ("torn", profile[:100]),
        ("noise", flip(profile, 0, 500)),
        ("large", profile * 200),
    ):
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            add(f"icc_{name}.{FORMATS[kind]}", encode(image, kind, icc_profile=icc))


def _add_names(add: Add, content: bytes) -> None:
    for name in (
        *(
            "with spaces.jpg",
            " in front.jpg",
            "-i.jpg",
            "--help.jpg",
            "two\nlines.jpg",
            "tab\there.jpg",
            "'quoted\".jpg",
        ),
        *(
            "*.jpg",
            "[a].jpg",
            "$(touch ran).jpg",
            "\x1b[2Jclear.jpg",
            "caf\u00e9.jpg",
            "cafe\u0301.jpg",
            "\U0001f600.jpg",
        ),
        *("SHOUT.JPG", "no suffix", "a" * 251 + ".jpg", b"\xff\xfe not text.jpg", "\u202egpj.exe", "%s%n.jpg", "~.jpg"),
    ):
        add(name, content)


def _special_files(folder: Path, content: bytes) -> list[Path]:
    """Links, pipes, devices and folders under the names of pictures."""
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "fifo.jpg")
    (folder / "loop_a.jpg").symlink_to("loop_b.jpg")
    (folder / "loop_b.jpg").symlink_to("loop_a.jpg")
    (folder / "nowhere.jpg").symlink_to("does not exist")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "to_fifo.jpg").symlink_to("fifo.jpg")
    (folder / "link.jpg").symlink_to("good.jpg")
    (folder / "locked.jpg").write_bytes(content)
    (folder / "locked.jpg").chmod(0)
    names = ["fifo", "loop_a", "loop_b", "nowhere", "zero", "to_fifo", "link", "locked", "missing"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as listener:  # the path may be too long
        listener.bind(str(folder / "socket.jpg"))
        names.append("socket")
    return [folder / f"{name}.jpg" for name in names]
