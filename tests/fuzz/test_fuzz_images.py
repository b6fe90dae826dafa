"""Damaged image files: a finite image within the limit, or one line that names the file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
import torch
from adcore.data.image_io import read_image, read_mask
from PIL import Image

LIMIT = 20_000_000  # max_image_pixels
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 4096, 32767, 32768, 65535, 1 << 20, 2**31 - 1, 2**31, 2**32 - 1)
Rng = np.random.Generator
SIZE = (37, 53)  # (H, W)


def values(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def with_pillow(array: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def with_tifffile(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png16(array: np.ndarray) -> bytes:
    """16-bit PNG without row filters; Pillow writes gray only."""
    height, width, channels = array.shape
    rows = np.ascontiguousarray(array.astype(">u2")).view(np.uint8).reshape(height, -1)
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return chunks_to_png([(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")])


def seeds() -> dict[str, bytes]:
    """A valid file of every kind that is supported."""
    gray, rgb, rgba = values(*SIZE), values(*SIZE, 3), values(*SIZE, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "png_gray": with_pillow(gray, "PNG"),
        "png_rgb": with_pillow(rgb, "PNG", exif=exif),
        "png_rgba": with_pillow(rgba, "PNG"),
        "png_la": with_pillow(rgba, "PNG", "LA"),
        "png_palette": with_pillow(rgb, "PNG", "P", transparency=3),
        "png_bits": with_pillow(gray, "PNG", "1"),
        "png16_gray": with_pillow(values(*SIZE, dtype=np.uint16), "PNG"),
        "jpg_rgb": with_pillow(rgb, "JPEG", exif=exif),
        "jpg_gray": with_pillow(gray, "JPEG"),
        "jpg_progressive": with_pillow(rgb, "JPEG", progressive=True),
        "jpg_cmyk": with_pillow(rgb, "JPEG", "CMYK"),
        "webp": with_pillow(rgb, "WEBP", exif=exif),
        "webp_lossless": with_pillow(rgba, "WEBP", lossless=True),
        "bmp": with_pillow(rgb, "BMP"),
        "bmp_palette": with_pillow(rgb, "BMP", "P"),
        "tif_lzw": with_pillow(rgb, "TIFF", compression="tiff_lzw"),
        "tif_jpeg": with_pillow(rgb, "TIFF", compression="jpeg"),
        "tif_group4": with_pillow(gray, "TIFF", "1", compression="group4"),
        "tif_packbits": with_pillow(gray, "TIFF", compression="packbits"),
        "tif_palette": with_pillow(rgb, "TIFF", "P"),
        "tif16_lzw": with_pillow(values(*SIZE, dtype=np.uint16), "TIFF", compression="tiff_lzw"),
        "tif_float_lzw": with_pillow(values(*SIZE, dtype=np.float32), "TIFF", compression="tiff_lzw"),
        "tif_bool": with_tifffile(gray > 127),
        "tif_white": with_tifffile(gray, photometric="miniswhite"),
        "tif_big": with_tifffile(gray, bigtiff=True),
        "tif_pages": with_tifffile(values(3, *SIZE), photometric="minisblack"),
        "tif_planes": with_tifffile(values(3, *SIZE), photometric="rgb", planarconfig="separate", compression="zlib"),
    }
    files |= {f"png16_{c}": png16(values(*SIZE, c, dtype=np.uint16)) for c in (2, 3, 4)}
    for dtype in (np.uint8, np.uint16, np.float32, np.float64):
        for compression in (None, "zlib", "lzma"):
            for layout in ({"rowsperstrip": 8}, {"tile": (16, 32)}):
                name = f"tif_{np.dtype(dtype).name}_{compression}_{next(iter(layout))}"
                array = values(*SIZE, 3, dtype=dtype)
                files[name] = with_tifffile(array, photometric="rgb", compression=compression, **layout)
        files[f"tif_{np.dtype(dtype).name}_gray"] = with_tifffile(
            values(*SIZE, dtype=dtype), compression="zlib", byteorder=">"
        )
    return files


# --- damage


def flip_bits(data: bytearray, rng: Rng) -> None:
    """Anywhere, or among the first bytes, where headers are."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 200)
    for _ in range(rng.integers(1, 10)):
        data[rng.integers(end)] ^= 1 << rng.integers(8)


def cut(data: bytearray, rng: Rng) -> None:
    del data[rng.integers(len(data)) :]


def move_bytes(data: bytearray, rng: Rng) -> None:
    """Remove, repeat or fill some bytes."""
    start, length = rng.integers(len(data)), rng.integers(1, 64)
    piece = bytes(data[start : start + length])
    data[start : start + length] = (b"", piece * 2, rng.bytes(len(piece)))[rng.integers(3)]


def write_number(data: bytearray, rng: Rng) -> None:
    """A number that means trouble where a length, a size or an offset may be."""
    number = int(rng.choice([*NUMBERS, len(data)]))
    size = int(rng.choice([1, 2, 4, 8]))
    place = int(rng.integers(min(len(data), 400)))
    data[place : place + size] = (number % 256**size).to_bytes(size, "big" if rng.random() < 0.5 else "little")


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def chunks_to_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def change_chunk(data: bytearray, rng: Rng) -> None:
    """Change, repeat or exchange a PNG's chunks, with right checksums."""
    chunks = png_chunks(bytes(data))
    if not data.startswith(b"\x89PNG") or not chunks:
        return
    which = int(rng.integers(len(chunks)))
    kind, body = chunks[which]
    how = rng.integers(4)
    if how == 0 and body:
        changed = bytearray(body)
        write_number(changed, rng) if rng.random() < 0.5 else flip_bits(changed, rng)
        chunks[which] = (kind, bytes(changed))
    elif how == 1:
        chunks.insert(int(rng.integers(len(chunks))), chunks[which])
    elif how == 2:
        del chunks[which]
    else:
        extra = (b"tEXt", b"zTXt", b"eXIf", b"iCCP", b"acTL", b"PLTE", b"tRNS", b"fcTL")[rng.integers(8)]
        chunks.insert(1, (extra, rng.bytes(rng.integers(40))))
    data[:] = chunks_to_png(chunks)


def change_tag(data: bytearray, rng: Rng) -> None:
    """Change one entry of a TIFF directory, or where the next directory is."""
    if len(data) < 8 or bytes(data[:4]) not in (b"II*\0", b"MM\0*"):
        return
    order = "<" if data[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    if start + 2 > len(data):
        return
    (count,) = struct.unpack_from(f"{order}H", data, start)
    place = start + 2 + 12 * int(rng.integers(count + 1))
    if place + 12 > len(data):
        return
    number = int(rng.choice([*NUMBERS, start, 8, len(data), int(rng.integers(2**32))]))
    if place == start + 2 + 12 * count or rng.random() < 0.5:
        struct.pack_into(f"{order}I", data, place + (0 if place == start + 2 + 12 * count else 8), number)
    elif rng.random() < 0.5:
        struct.pack_into(f"{order}I", data, place + 4, number)
    else:
        struct.pack_into(f"{order}H", data, place + int(rng.choice([0, 2])), number % 65536)


def splice(data: bytearray, rng: Rng, other: bytes) -> None:
    """The beginning of one file and the end of another."""
    data[rng.integers(len(data)) :] = other[rng.integers(len(other)) :]


DAMAGES: tuple[Callable[[bytearray, Rng], None], ...] = (
    flip_bits,
    cut,
    move_bytes,
    write_number,
    change_chunk,
    change_tag,
)


@pytest.fixture(scope="module")
def files() -> list[tuple[str, bytes]]:
    return sorted(seeds().items())


def test_every_seed_is_a_good_file(files: list[tuple[str, bytes]], tmp_path: Path) -> None:
    for name, data in files:
        (tmp_path / name).write_bytes(data)
        if name == "tif_pages":
            continue
        assert read_image(tmp_path / name).shape in ((3, *SIZE), (3, *SIZE[::-1])), name


@pytest.mark.parametrize("kinds", [("png", "jpg", "webp", "bmp"), ("tif",)], ids=["common", "tiff"])
def test_damaged_images(kinds: tuple[str, ...], files: list[tuple[str, bytes]], fuzz_budget, tmp_path: Path) -> None:
    adcore.set_globals(max_image_pixels=LIMIT)
    mine = [data for name, data in files if name.startswith(kinds)]
    path = tmp_path / "image.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what it passes over
        for rng in fuzz_budget:
            data = bytearray(mine[rng.integers(len(mine))])
            for _ in range(rng.integers(1, 4)):
                if data:
                    DAMAGES[rng.integers(len(DAMAGES))](data, rng)
            if data and rng.random() < 0.05:
                splice(data, rng, files[rng.integers(len(files))][1])
            path.write_bytes(data)
            image = fuzz_budget.one_clear_line(lambda: read_image(path), path)
            if image is not None:
                assert image.dtype == torch.float32, fuzz_budget
                assert image.ndim == 3, fuzz_budget
                assert image.shape[0] == 3, fuzz_budget
                assert 0 < image[0].numel() <= LIMIT, fuzz_budget
                assert torch.isfinite(image).all(), fuzz_budget
            mask = fuzz_budget.one_clear_line(lambda: read_mask(path), path)
            if mask is not None and image is not None:
                assert mask.dtype == torch.bool, fuzz_budget
                assert mask.shape == image.shape[1:], fuzz_budget
    assert fuzz_budget.done
