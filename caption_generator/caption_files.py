"""Captions out of the files that people have: Flickr8k's own, tables, and COCO's JSON; and which photo a name means."""

import ast
import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from caption_generator.common.errors import CaptionError
from caption_generator.common.files import open_regular
from caption_generator.common.pictures import SUFFIXES
from caption_generator.workspace import or_fetch

Descriptions = dict[str, list[str]]
Row = tuple[int, str, str]  # where, from 1; image name, perhaps with the caption's number; caption

FORMS = "lines name.jpg#0<TAB>caption, a table with a header such as image,caption, or COCO's JSON"
SPREADSHEETS = (".xlsx", ".xls", ".ods")
# The headers of tables and the keys of JSON, in lower case and without spaces, "-" and "_".
# The id comes last: where there is a name too, it is a number as a rule.
NAME_KEYS = (
    "image",
    "imagename",
    "imagefile",
    "imagefilename",
    "imagepath",
    "img",
    "imgname",
    "filename",
    "filepath",
    "file",
    "photo",
    "picture",
    "name",
    "path",
    "imageid",
    "imgid",
)
CAPTION_KEYS = ("caption", "captions", "comment", "comments", "text", "sentence", "sentences", "description", "raw")
NUMBER_KEYS = ("commentnumber", "captionnumber", "captionid", "captionindex", "sentenceid", "sentid", "number")
SEPARATORS = (",", ";", "|", "\t")
QUOTED_LINES = 20  # that a caption in quotes may go on for

NUMBER = re.compile(r"#\d+$")  # of a caption, at the end of its id
LANGUAGE = re.compile(r"(?<=\.\w{3})#[a-z]+$|(?<=\.\w{4})#[a-z]+$|#zh[a-z]*$")  # before it, as Flickr8k-CN's #zhb#0
BY_SPACE = re.compile(r"(\S+#[a-z]+#\d+)\s+(.*)")  # an id of that kind needs no tab
NUMBERED = re.compile(r"\s*(\d+)\s+(\S.*)")
# What no reader sees: control characters that are no white space, marks of direction, half of a surrogate pair.
UNSEEN = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


@dataclass
class RawCaptions:
    """The captions as their authors wrote them, and what was wrong with the file.

    Attributes:
        captions: image name to its captions, in the file's order.
        duplicates: ids (`name#n`) that came more than once; the first caption was kept.
        malformed: line numbers, in JSON numbers of entries, from 1, without an image name or without a caption.
    """

    captions: Descriptions = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    malformed: list[int] = field(default_factory=list)


def read_captions(path: str | Path, on_disk: Iterable[str] = ()) -> RawCaptions:
    """Read a file of captions, whatever its form.

    It understands `Flickr8k.token.txt` (`name#n<TAB>caption`), tables with a header (Kaggle's `captions.txt`,
    Flickr30k's `results.csv`; separators `,` `;` `|` and tab; further columns are left out), tables without one whose
    first column holds image names, and JSON (COCO's, Karpathy's, lists of objects, names to captions). Byte-order
    marks, Windows line ends and blank lines do no harm. Captions come out as `tidy` leaves them.

    Args:
        path: the file.
        on_disk: the names of the image files. Names in the text that mean one of them, as `match_names` finds, are
            replaced by it.

    Raises:
        CaptionError: the file is missing, is not UTF-8 text, or holds not one caption; or nearly no name is on disk.
    """
    path = Path(path)
    text = _read_text(path)
    rows, found = _rows(path, text)
    raw, seen = RawCaptions(), set()
    for number, identifier, caption in rows:
        name = LANGUAGE.sub("", NUMBER.sub("", identifier)) if NUMBER.search(identifier) else identifier
        name, caption = name.strip(), tidy(caption)
        if not name or not caption:
            raw.malformed.append(number)
        elif name != identifier and identifier in seen:
            raw.duplicates.append(identifier)
        else:
            seen.add(identifier)
            raw.captions.setdefault(name, []).append(caption)
    if not raw.captions:
        raise CaptionError(f"{path} holds no captions ({found}): it should hold {FORMS}.")
    on_disk = list(on_disk)
    if on_disk:
        names = match_names(raw.captions, on_disk)
        check_match(names, raw.captions, on_disk, str(path))
        renamed: Descriptions = {}
        for name, captions in raw.captions.items():
            renamed.setdefault(names.get(name, name), []).extend(captions)
        raw.captions = renamed
    return raw


def tidy(text: str) -> str:
    """The same words in Unicode's composed form (NFC), on one line, with single spaces and nothing that is not seen."""
    return " ".join(UNSEEN.sub("", unicodedata.normalize("NFC", text).replace("\u200b", " ")).split())


def match_names(names: Iterable[str], on_disk: Iterable[str]) -> dict[str, str]:
    """Which file each name means.

    The same name counts; else one that differs in capitals, in Unicode's form or in the folders before it; else one
    that differs in a picture's suffix, or has none. Where two files are meant, none is taken.

    Args:
        names: as a text has them.
        on_disk: as the folder has them.

    Returns:
        Name to file, of the names that have one.
    """
    on_disk = list(on_disk)
    exact = set(on_disk)
    by_name, by_stem = _index(on_disk, _folded), _index(on_disk, lambda name: _stem(_folded(name)))
    found = {}
    for name in names:
        folded = _folded(name)
        if name in exact:
            found[name] = name
        elif len(files := by_name.get(folded) or by_stem.get(_stem(folded), [])) == 1:
            found[name] = files[0]
    return found


def _index(on_disk: Iterable[str], key: Any) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for name in on_disk:
        table.setdefault(key(name), []).append(name)
    return table


def _folded(name: str) -> str:
    last = re.split(r"[/\\]", name)[-1]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", last).casefold())


def _stem(folded: str) -> str:
    suffix = PurePath(folded).suffix
    return folded.removesuffix(suffix) if suffix in SUFFIXES else folded


def check_match(matched: Mapping[str, str], names: Iterable[str], on_disk: Iterable[str], text: str) -> None:
    """Refuse a text and a folder that hardly have to do with each other.

    Args:
        matched: from `match_names`.
        names: those in the text.
        on_disk: those in the folder.
        text: what to call the text.

    Raises:
        CaptionError: less than a tenth of either side has its match.
    """
    names, on_disk = list(names), list(on_disk)
    if names and len(matched) < max(1, 0.1 * min(len(names), len(on_disk))):
        taken = set(matched.values())
        theirs = next((name for name in names if name not in matched), names[0])
        ours = next((f"a file {name}" for name in on_disk if name not in taken), "no pictures")
        raise CaptionError(
            f"{text} names {len(names):,} images, and {len(matched):,} of them are in the image folder: the text says "
            f"{theirs}, the folder has {ours}; give both the same names."
        )


def read_lines(path: str | Path, remedy: str = "") -> list[str]:
    """The lines of a text in UTF-8, without their ends.

    Args:
        remedy: what to do where there is no such file, which otherwise should hold captions.

    Raises:
        CaptionError: the file is missing or is not UTF-8 text.
    """
    return _lines(_read_text(Path(path), remedy))


def _lines(text: str) -> list[str]:
    if "\n" not in text:  # as Macs once wrote
        text = text.replace("\r", "\n")
    # Not splitlines(), which also splits at the likes of U+2028, and they may be part of a caption.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read_text(path: Path, remedy: str = "") -> str:
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise CaptionError(f"{path} does not exist{_neighbours(path)}: {remedy or _make_them(path.parent)}.") from None
    except OSError as error:
        raise CaptionError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CaptionError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error


def _neighbours(path: Path) -> str:
    there = sorted(p.name for p in path.parent.glob("[!.]*")) if path.parent.is_dir() else []
    return f" (the folder holds {', '.join(there[:3])}{', ...' if there[3:] else ''})" if there else ""


def _make_them(folder: Path) -> str:
    """What to do where a folder holds no captions that can be read."""
    if sheets := sorted(path.name for path in folder.glob("[!.]*") if path.suffix.lower() in SPREADSHEETS):
        return f"save {sheets[0]} as captions.csv, with the columns image and caption"
    return f"put captions.txt there, a CSV file with the columns image and caption{or_fetch(folder)}"


def _rows(path: Path, text: str) -> tuple[Iterable[Row], str]:
    """The rows of a text, and in words what was found in it."""
    start = text.lstrip()[:1]
    if path.suffix.lower() == ".json" or (start in ("{", "[") and "\t" not in text.lstrip().partition("\n")[0]):
        return _json_rows(path, text)
    lines = _lines(text)
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if lines[first:] and re.fullmatch(r"sep=.", lines[first].strip(), re.IGNORECASE):  # Excel's
        first += 1
    header = lines[first] if lines[first:] else ""
    if table := _table(header):
        return _table_rows(lines, table, first), f"a table with the columns {' '.join(header.split())[:120]}"
    found = f"its first line is {' '.join(header.split())[:120]!r}" if header.strip() else "it is empty"
    return _token_rows(lines), found


def _token_rows(lines: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            identifier, tab, caption = line.partition("\t")
            if not tab and (split := BY_SPACE.fullmatch(line.strip())):
                identifier, caption = split.groups()
            yield number, identifier.strip(), caption


@dataclass(frozen=True)
class _Table:
    """Where a table has what.

    Attributes:
        separator: between columns.
        name: the column of image names.
        caption: the column of captions.
        number: that of the captions' numbers, or None.
        columns: how many there are.
        header: whether there is one.
    """

    separator: str
    name: int
    caption: int
    number: int | None
    columns: int
    header: bool = True


def _table(line: str) -> _Table | None:
    """What the first line of a text says of its columns; None where the text is no table."""
    for separator in SEPARATORS:
        titles = [re.sub(r"[\s_-]", "", cell).lower() for cell in _cells(line, separator)]
        name, caption, number = (
            next((titles.index(key) for key in keys if key in titles), None)
            for keys in (NAME_KEYS, CAPTION_KEYS, NUMBER_KEYS)
        )
        if name is not None and caption is not None:
            return _Table(separator, name, caption, number, len(titles))
    for separator in SEPARATORS[:3]:  # with a tab it is Flickr8k's own form
        cells = _cells(line, separator)
        if len(cells) > 1 and PurePath(cells[0].strip().lower()).suffix in SUFFIXES and "\t" not in line:
            numbered = len(cells) > 2 and cells[1].strip().isdigit()
            return _Table(separator, 0, 1 + numbered, 1 if numbered else None, 2 + numbered, header=False)
    return None


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a row; none where `csv` cannot make sense of it."""
    try:
        return next(csv.reader([re.sub("[\r\n\0]", " ", line)], delimiter=separator), [])
    except csv.Error:
        return []


def _table_rows(lines: list[str], table: _Table, first: int) -> Iterator[Row]:
    """The rows from line number `first` on, the header's if there is one."""
    following = first + table.header
    while following < len(lines):
        start, line = following, lines[following]
        following += 1
        if not line.strip():
            continue
        if line.count('"') % 2:  # a caption in quotes may go on
            following = _end_of_quotes(lines, start, table)
            line = " ".join(lines[start:following])
        name, cell = _table_row(_cells(line, table.separator), table)
        for caption in _listed(cell):
            yield start + 1, name, caption


def _listed(cell: str) -> list[str]:
    """Each caption of a cell that holds a list of them, as JSON or pandas writes one; else the cell itself."""
    if cell.strip().startswith("["):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            found = ast.literal_eval(cell.strip())
            if isinstance(found, list) and found and all(isinstance(caption, str) for caption in found):
                return found
    return [cell]


def _end_of_quotes(lines: list[str], start: int, table: _Table) -> int:
    """The number of the line after the one where the quotes end; a quote that nobody closed swallows no other row."""
    quotes = lines[start].count('"')
    for number in range(start + 1, min(start + QUOTED_LINES, len(lines))):
        cells = lines[number].split(table.separator)
        if len(cells) >= table.columns and _is_image_name(cells[table.name]):
            break
        quotes += lines[number].count('"')
        if quotes % 2 == 0:
            return number + 1
    return start + 1


def _is_image_name(cell: str) -> bool:
    return PurePath(cell.strip().strip('"').lower()).suffix in SUFFIXES


def _table_row(cells: list[str], table: _Table) -> tuple[str, str]:
    """Image name, with the caption's number if there is one, and caption; empty where a cell is missing."""
    columns = [table.name, table.caption, *([] if table.number is None else [table.number])]
    # One of the lines of Flickr30k lacks the separator between number and caption.
    number = table.caption - 1
    if len(cells) == table.columns - 1 and number == table.number < len(cells):
        split = NUMBERED.fullmatch(cells[number])
        cells = [*cells[:number], *split.groups(), *cells[number + 1 :]] if split else cells
    extra = len(cells) - table.columns
    # Separators that nobody quoted: in a name, as far as to its suffix, and in a caption.
    name_end = table.name + 1
    if extra > 0 and not _is_image_name("".join(cells[table.name : name_end])):
        longer = range(name_end + 1, name_end + extra + 1)
        name_end = next((end for end in longer if _is_image_name(cells[end - 1])), name_end)
        cells = [*cells[: table.name], table.separator.join(cells[table.name : name_end]), *cells[name_end:]]
        extra = len(cells) - table.columns
    if extra > 0:
        end = table.caption + extra + 1
        cells = [*cells[: table.caption], table.separator.join(cells[table.caption : end]), *cells[end:]]
    if len(cells) <= max(columns):
        return "", ""
    name, digits = cells[table.name].strip(), "" if table.number is None else cells[table.number].strip()
    return f"{name}#{digits}" if name and digits.isdigit() else name, cells[table.caption]


def _load_json(text: str) -> Any:
    """One JSON value, or the objects of a file that has one on each line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as whole:
        objects = []
        for number, line in enumerate(text.split("\n"), 1):
            try:
                objects += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                error.lineno = number
                raise (error if objects else whole) from None
        if not all(isinstance(entry, dict) for entry in objects):
            raise
        return objects


def _json_rows(path: Path, text: str) -> tuple[list[Row], str]:
    try:
        loaded = _load_json(text)
    except json.JSONDecodeError as error:
        raise CaptionError(
            f"{path} is not whole JSON (line {error.lineno}, column {error.colno}: {error.msg}): get it again."
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
        raise CaptionError(
            f"{path} is JSON that nobody's captions are in ({type(error).__name__}): get it again."
        ) from error
    pairs = list(_json_pairs(loaded))
    rows = [(number, name, caption) for number, (name, caption) in enumerate(pairs, 1)]
    first = loaded[0] if isinstance(loaded, list) and loaded and isinstance(loaded[0], dict) else loaded
    keys = list(first) if isinstance(first, dict | list) else []
    kind = "an object" if isinstance(loaded, dict) else "a list" if isinstance(loaded, list) else "a value"
    named = ", ".join(str(key)[:20] for key in keys[:6]) if isinstance(loaded, dict | list) else ""
    return rows, f"JSON, {kind} with {named or 'nothing in it'}"


def _json_pairs(loaded: Any) -> Iterator[tuple[str, str]]:
    """Name and caption of each entry; empty where it lacks one."""
    if isinstance(loaded, dict) and isinstance(loaded.get("annotations"), list):  # COCO's
        images = loaded.get("images")
        names = {
            str(image.get("id")): _string(image, NAME_KEYS)
            for image in (images if isinstance(images, list) else ())
            if isinstance(image, dict)
        }
        for entry in loaded["annotations"]:
            entry = entry if isinstance(entry, dict) else {}
            number = entry.get("image_id")
            yield names.get(str(number)) or _named_by_number(number), _string(entry, CAPTION_KEYS)
    elif isinstance(loaded, dict) and isinstance(loaded.get("images"), list):  # Karpathy's
        yield from _json_pairs(loaded["images"])
    elif isinstance(loaded, dict):  # names to captions
        for name, captions in loaded.items():
            for caption in captions if isinstance(captions, list) else [captions]:
                yield name, _caption(caption)
    elif isinstance(loaded, list):
        for entry in loaded:
            entry = entry if isinstance(entry, dict) else {}
            captions = next((value for value in _values(entry, CAPTION_KEYS) if isinstance(value, list)), None)
            for caption in [_string(entry, CAPTION_KEYS)] if captions is None else captions:
                yield _string(entry, NAME_KEYS), _caption(caption)


def _caption(value: Any) -> str:
    return _string(value, CAPTION_KEYS) if isinstance(value, dict) else value if isinstance(value, str) else ""


def _values(entry: Mapping[str, Any], keys: Sequence[str]) -> Iterator[Any]:
    plain = {re.sub(r"[\s_-]", "", key).lower(): value for key, value in entry.items()}
    return (plain[key] for key in keys if key in plain)


def _string(entry: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first text under one of `keys`: the name of a file is preferred to a path or a number."""
    return next((value for value in _values(entry, keys) if isinstance(value, str)), "")


def _named_by_number(number: Any) -> str:
    return (
        f"{number:012}.jpg" if isinstance(number, int) and 0 <= number < 10**12 else ""
    )  # as COCO names them since 2017
