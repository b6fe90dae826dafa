"""Damaged CSV tables and file names that cannot be written: one line with file and line, before anything is scored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from adcore.data.folder import Folder
from adcore.data.hdmap import HDMap
from adcore.data.mvtec import MVTec
from adcore.data.visa import VisA
from adcore.errors import DataError
from adcore.files import printable
from adcore_runtime.listing import find_images

Make = Callable[..., Path]
Refuses = Callable[..., None]
FOLDER_HEAD = "image_path,split,label,defect,mask_path\n"
VISA_HEAD = "object,split,label,image,mask\n"
ROWS = {"folder": "a/1.png,train,normal,,\n", "visa": "nut,train,normal,a/1.png,\n"}
HEADS = {"folder": FOLDER_HEAD, "visa": VISA_HEAD}


@pytest.fixture
def read(tmp_path: Path, make_images: Make) -> Callable[[str, bytes], list]:
    """read(layout, table): the samples of a dataset of four images with this table."""
    root = make_images(tmp_path / "part", "a/{1-4}.png")
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir()

    def samples(layout: str, content: bytes) -> list:
        table.write_bytes(content)
        reader = VisA(root) if layout == "visa" else Folder(root, metadata=table)
        return reader.samples(reader.categories()[0])

    return samples


@pytest.mark.parametrize("layout", ["folder", "visa"])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b"%s,too,many\n", ["line 3", "7 cells for 5 columns"]),
        (b'"a/2.png\n', ["line 3", "control characters"]),
        (b"a/\x00.png,train,normal,,\n", ["line 3", "control characters"]),
        (b"x" * 200_000 + b",train\n", ["after line 2", "field larger"]),
        (b"a/\xff.png,,,,\n", ["after line", "UTF-8"]),
    ],
)
def test_a_damaged_row_is_named(layout: str, row: bytes, words: list[str], read: Callable, refuses: Refuses) -> None:
    good = ROWS[layout].encode()
    content = HEADS[layout].encode() + good + row.replace(b"%s", good.strip())
    refuses(lambda: read(layout, content), "1cls.csv", *words)


@pytest.mark.parametrize("layout", ["folder", "visa"])
def test_a_row_that_is_there_twice_is_named(layout: str, read: Callable, refuses: Refuses) -> None:
    assert len(read(layout, (HEADS[layout] + ROWS[layout]).encode())) == 1
    refuses(
        lambda: read(layout, (HEADS[layout] + ROWS[layout] + "\n" + ROWS[layout]).encode()), "line 4", "listed twice"
    )


@pytest.mark.parametrize("layout", ["folder", "visa"])
def test_a_name_that_no_system_takes(layout: str, read: Callable, refuses: Refuses) -> None:
    row = ROWS[layout].replace("a/1.png", "a/" + "1" * 5000 + ".png")
    refuses(lambda: read(layout, (HEADS[layout] + row).encode()), "line 2", "5006 characters", "missing")


@pytest.mark.parametrize("layout", ["folder", "visa"])
def test_an_empty_name_is_no_image(layout: str, read: Callable, refuses: Refuses) -> None:
    refuses(lambda: read(layout, (HEADS[layout] + ROWS[layout].replace("a/1.png", "")).encode()), "line 2", "missing")


@pytest.mark.parametrize("layout", ["folder", "visa"])
def test_a_column_that_is_there_twice(layout: str, read: Callable, refuses: Refuses) -> None:
    head = HEADS[layout].strip() + ",label\n"
    refuses(lambda: read(layout, (head + ROWS[layout]).encode()), "1cls.csv, line 1", "twice")


@pytest.mark.parametrize("content", [b"", b"\xff\xfei\x00m\x00", b"\n\n\n", b"\x00" * 100])
@pytest.mark.parametrize("layout", ["folder", "visa"])
def test_a_file_that_is_no_table(layout: str, content: bytes, read: Callable, refuses: Refuses) -> None:
    refuses(lambda: read(layout, content), "1cls.csv")


def test_excels_byte_order_mark_is_no_part_of_the_first_column(read: Callable) -> None:
    assert len(read("folder", (FOLDER_HEAD + ROWS["folder"]).encode("utf-8-sig"))) == 1


def test_a_table_that_is_a_folder(tmp_path: Path, refuses: Refuses) -> None:
    refuses(Folder(tmp_path, metadata=tmp_path).categories, str(tmp_path), "not a file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_table_that_is_a_pipe(tmp_path: Path, refuses: Refuses) -> None:
    os.mkfifo(tmp_path / "x.csv")
    end = os.open(tmp_path / "x.csv", os.O_RDWR)  # so that a wrong program reads something instead of waiting
    try:
        os.write(end, b"\xff" * 10_000)
        refuses(Folder(tmp_path, metadata=tmp_path / "x.csv").categories, "x.csv: not a file")
    finally:
        os.close(end)


# --- names that cannot be written to a result


@pytest.fixture
def odd(tmp_path: Path) -> Callable[[str, bytes], None]:
    """odd(place, name): an image of that name, in bytes, below tmp_path / place."""

    def make(place: str, name: bytes) -> None:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        try:
            with open(os.path.join(os.fsencode(tmp_path / place), name), "wb") as file:
                file.write(b"x")
        except OSError:
            pytest.skip("this file system has no such names")

    return make


@pytest.mark.parametrize(("name", "shown"), [(b"caf\xe9.png", r"caf\xe9.png"), (b"a\nb.png", r"a\nb.png")])
def test_a_name_that_is_not_one_line_of_utf8_is_refused_by_every_reader(
    tmp_path: Path, odd: Callable, name: bytes, shown: str, make_images: Make, refuses: Refuses
) -> None:
    for place in ("part/train/good", "part/test/good"):
        make_images(tmp_path, f"{place}/{{1-3}}.png")
    odd("part/test/good", name)
    for reader in (MVTec(tmp_path), HDMap(tmp_path), Folder(tmp_path / "part")):
        refuses(lambda reader=reader: reader.samples("part"), shown, "rename")
    refuses(lambda: find_images(tmp_path), shown, "rename")
    refuses(lambda: find_images(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "part/test/good"), name)))), shown)


def test_folders_whose_names_are_not_utf8(tmp_path: Path, odd: Callable, make_images: Make, refuses: Refuses) -> None:
    make_images(tmp_path, "part/train/good/{1-3}.png")
    odd(os.fsdecode(b"part/test/caf\xe9"), b"1.png")
    refuses(lambda: MVTec(tmp_path).samples("part"), r"caf\xe9", "rename")
    refuses(lambda: Folder(tmp_path / "part").samples("part"), r"caf\xe9", "rename")


def test_what_is_no_image_may_have_any_name(tmp_path: Path, odd: Callable, make_images: Make) -> None:
    make_images(tmp_path, "part/train/good/{1-3}.png")
    odd("part/train/good", b"caf\xe9.txt")
    assert len(MVTec(tmp_path).samples("part")) == 3
    with pytest.raises(DataError) as caught:
        MVTec(tmp_path / "part/train/good").categories()
    assert str(caught.value).isprintable()


def test_printable() -> None:
    assert printable(Path("Maß/検査 1.png")) == "Maß/検査 1.png".replace("/", os.sep)
    assert printable("a\u2028b\x1b.png") == r"a\u2028b\x1b.png"
