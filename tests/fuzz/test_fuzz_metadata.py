"""Damaged CSV tables: the samples of images that are there, or one line that names the table or what it lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adcore.data.folder import METADATA, Folder
from adcore.data.samples import DatasetReader, Sample
from adcore.data.visa import VisA
from PIL import Image

Rng = np.random.Generator
FOLDER = """image_path,split,label,defect,mask_path,category
good/1.png,train,normal,,,left
good/2.png,train,0,,,left
"good/3, new.png",test,ok,,,left
bad/1.png,test,anomalous,dent,mask/1.png,right
bad/2.png,val,1,Kratzer ü,,right
good/4.png,train,normal,,,right
"""
VISA = """object,split,label,image,mask
nut,train,normal,good/1.png,
nut,train,normal,good/2.png,
nut,test,normal,"good/3, new.png",
nut,test,anomaly,bad/1.png,mask/1.png
lid,train,normal,good/4.png,
lid,val,anomaly,bad/2.png,
"""
CELLS = (  # what may stand in a cell
    "", " ", "\0", "\n", '"', ",", ";", "é", "\ufeff", "\u2028", "\ud800", "..", "/", "~", "good", "bad/1.png", "-1",
    "1e999", "nan", "train", "TEST", "=1+1", "a" * 300, "a" * 140_000, "good/../good/1.png", "C:\\x", "\x1b[31m",
)  # fmt: skip


def change_cell(data: bytes, rng: Rng) -> bytes:
    lines = data.split(b"\n")
    which = int(rng.integers(len(lines)))
    cells = lines[which].split(b",")
    cells[rng.integers(len(cells))] = CELLS[rng.integers(len(CELLS))].encode("utf-8", "surrogatepass")
    lines[which] = b",".join(cells)
    return b"\n".join(lines)


def change_lines(data: bytes, rng: Rng) -> bytes:
    """Repeat, remove or exchange lines, the first one with the names too."""
    lines = data.split(b"\n")
    first, second = rng.integers(len(lines), size=2)
    how = rng.integers(3)
    if how == 0:
        lines.insert(first, lines[second])
    elif how == 1:
        del lines[first]
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def change_columns(data: bytes, rng: Rng) -> bytes:
    names, _, rest = data.partition(b"\n")
    cells = names.split(b",")
    rng.shuffle(cells)
    return b",".join(cells[: rng.integers(1, len(cells) + 1)]) + b"\n" + rest


def encode_otherwise(data: bytes, rng: Rng) -> bytes:
    text = data.decode("utf-8", "replace")
    encodings = ("utf-16", "utf-32", "latin-1", "cp1252", "utf-8-sig", "shift-jis", "utf-7")
    return text.encode(encodings[rng.integers(len(encodings))], "replace")


def change_bytes(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        changed[rng.integers(len(changed))] = rng.choice([*range(256), *b'",\n\r\0;\t'])
    return bytes(changed)


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(len(data))]


def other_ends(data: bytes, rng: Rng) -> bytes:
    return data.replace(b"\n", (b"\r\n", b"\r", b"\n\n", b"\0", b";\n")[rng.integers(5)])


DAMAGES = (change_cell, change_cell, change_lines, change_columns, encode_otherwise, change_bytes, cut, other_ends)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images at the places that the tables list."""
    names = [f"good/{name}.png" for name in ("1", "2", "3, new", "4")] + ["bad/1.png", "bad/2.png", "mask/1.png"]
    for name in names:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    return tmp_path / "root"


def fuzz(fuzz_budget, table: Path, whole: str, reader: Callable[[], DatasetReader], root: Path) -> None:
    """Damage `whole`, write it to `table`, read all categories."""
    table.parent.mkdir(exist_ok=True)
    good = 0
    for rng in fuzz_budget:
        data = whole.encode()
        for _ in range(rng.integers(0, 4)):
            data = DAMAGES[rng.integers(len(DAMAGES))](data, rng) if data else data
        table.write_bytes(data)
        opened = reader()
        categories = fuzz_budget.one_clear_line(opened.categories, table, root)
        for category in categories or ():
            samples = fuzz_budget.one_clear_line(lambda: opened.samples(category), table, root)  # noqa: B023
            for sample in samples or ():
                check(sample, category, fuzz_budget)
                good += 1
    assert good


def check(sample: Sample, category: str, case: object) -> None:
    assert sample.image_path.is_file(), case
    assert sample.mask_path is None or sample.mask_path.is_file(), case
    assert (sample.split in ("train", "val", "test"), sample.label in (0, 1), sample.category) == (
        True,
        True,
        category,
    ), case
    assert str(sample.image_path).encode("utf-8"), case  # results can name it


def test_damaged_tables_of_folder(root: Path, fuzz_budget) -> None:
    table = root.parent / "table.csv"
    fuzz(fuzz_budget, table, FOLDER, lambda: Folder(root, metadata=table), root)


def test_damaged_metadata_that_adcore_wrote(root: Path, fuzz_budget) -> None:
    Folder(root).samples("root")
    fuzz(fuzz_budget, root / METADATA, (root / METADATA).read_text(encoding="utf-8"), lambda: Folder(root), root)


def test_damaged_tables_of_visa(root: Path, fuzz_budget) -> None:
    fuzz(fuzz_budget, root / "split_csv" / "1cls.csv", VISA, lambda: VisA(root), root)
