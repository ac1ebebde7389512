"""Which files are pictures, by their names: plain lists, for what reads pictures and for what only lists them."""

from pathlib import Path

# Pillow's raster formats and their suffixes. EPS and similar formats are left out, because Pillow runs Ghostscript to
# read them. Formats that Pillow cannot read by itself are left out, too. TGA comes last: its files have no signature.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "MPO": (".mpo",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "PSD": (".psd",),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "ICNS": (".icns",),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "DDS": (".dds",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "FLI": (".fli", ".flc"),
    "BLP": (".blp",),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "IM": (".im",),
    "MSP": (".msp",),
    "PCD": (".pcd",),
    "PIXAR": (".pxr",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
}
# Photos that Pillow alone does not read, with what to do: they are listed, and named as failures.
INSTALL_HEIF = "install pillow-heif (pip install pillow-heif), or export it as JPEG"
EXPORT = "export it as JPEG"
FOREIGN = {
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), ("HEIC", INSTALL_HEIF)),
    ".jxl": ("JPEG XL", EXPORT),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), ("a camera's raw data", EXPORT)),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes) | frozenset(FOREIGN)


def is_picture(path: Path) -> bool:
    """Whether the file's name is that of a picture. Hidden files, such as macOS' `._x.jpg`, are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
