"""Files that would take the machine's memory, or its time: refused from their headers, with one line."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import adcore
import numpy as np
import pytest
import tifffile
import torch
from adcore.data import image_io
from adcore.data.image_io import read_image, read_mask
from PIL import Image

RNG = np.random.default_rng(0)
SETTING = "max_image_pixels"
Refuses = Callable[..., None]


def png(width: int, height: int, depth: int, color_type: int, data: bytes = b"") -> bytes:
    """A PNG file with these values in its header, whatever `data` holds."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def patch_tag(path: Path, tag: int, kind: int, *values: int) -> None:
    """Replace an inline entry of a little-endian TIFF file: kind 3 is SHORT, 4 LONG."""
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, place)[0] == tag:
            value = struct.pack("<" + {3: "H", 4: "I"}[kind] * len(values), *values).ljust(4, b"\0")
            struct.pack_into("<HHI4s", data, place, tag, kind, len(values), value)
            path.write_bytes(data)
            return
    raise AssertionError(f"no tag {tag}")


def gray(height: int, width: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width), dtype=np.uint8))


# --- one limit for every format


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_pixel_too_many_is_refused_in_every_format(
    tmp_path: Path, suffix: str, mode: str, refuses: Refuses, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / f"a{suffix}"
    gray(1000, 1250).convert(mode).save(path)
    adcore.set_globals(max_image_pixels=1_250_000)
    assert read_image(path).shape == (3, 1000, 1250)
    adcore.set_globals(max_image_pixels=1_249_999)
    for read in (read_image, read_mask):
        refuses(
            lambda read=read: read(path), str(path), "1250 x 1000 px", f"{SETTING} = 1249999", "ADCORE_MAX_IMAGE_PIXELS"
        )
    assert not list(recwarn)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits", None])
def test_every_compression_of_tiff_has_the_limit(tmp_path: Path, compression: str | None, refuses: Refuses) -> None:
    gray(1000, 1001).save(tmp_path / "a.tif", compression=compression)
    adcore.set_globals(max_image_pixels=1_000_000)
    refuses(lambda: read_image(tmp_path / "a.tif"), SETTING)


@pytest.mark.parametrize("color_type", [0, 2, 4, 6])
def test_headers_of_absurd_size_are_refused_before_memory_is_taken(
    tmp_path: Path, color_type: int, refuses: Refuses
) -> None:
    for depth in (8, 16):
        (tmp_path / "a.png").write_bytes(png(2**31 - 1, 2**31 - 1, depth, color_type))
        refuses(lambda: read_image(tmp_path / "a.png"), SETTING)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.float32))
    patch_tag(tmp_path / "a.tif", 256, 4, 2**31)
    refuses(lambda: read_image(tmp_path / "a.tif"), SETTING)


def test_pillows_own_limit_and_its_warning_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    for limit in (10, 1500):  # beyond twice the limit Pillow refuses, below it warns
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for suffix in (".png", ".jpg", ".bmp", ".tif"):
            gray(40, 50).save(tmp_path / f"a{suffix}")
            assert read_image(tmp_path / f"a{suffix}").shape == (3, 40, 50)
    assert not list(recwarn)


def test_deep_images_are_limited_in_bytes(tmp_path: Path, refuses: Refuses) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RNG.random((500, 600, 3)), photometric="rgb")  # float64: 24 bytes a pixel
    adcore.set_globals(max_image_pixels=1_200_000)
    assert read_image(tmp_path / "a.tif").shape == (3, 500, 600)
    adcore.set_globals(max_image_pixels=1_199_999)
    refuses(lambda: read_image(tmp_path / "a.tif"), "24 bytes", SETTING)


def test_a_small_picture_in_a_huge_tile_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.uint16), tile=(16, 16), compression="zlib")
    patch_tag(tmp_path / "a.tif", 322, 4, 1 << 20)
    patch_tag(tmp_path / "a.tif", 323, 4, 1 << 20)
    refuses(lambda: read_image(tmp_path / "a.tif"), SETTING)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_a_strip_that_unpacks_to_more_than_it_should_hold_is_refused(
    tmp_path: Path, dtype: type, compression: str, refuses: Refuses
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((512, 64), dtype), compression=compression, rowsperstrip=512)
    assert read_image(tmp_path / "a.tif").shape == (3, 512, 64)
    patch_tag(tmp_path / "a.tif", 257, 3, 64)  # as high as an eighth of what is stored
    refuses(lambda: read_image(tmp_path / "a.tif"), "too large")


@pytest.mark.parametrize("predictor", [None, 2])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 32)}, {}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
def test_what_is_unpacked_with_a_limit_equals_tifffile(
    tmp_path: Path, predictor: int | None, planar: str, layout: dict, dtype: type
) -> None:
    values = RNG.integers(0, 255, (3, 45, 70) if planar == "separate" else (45, 70, 3)).astype(dtype)
    path = tmp_path / "a.tif"
    byteorder = ">" if dtype == ">u2" else "<"
    tifffile.imwrite(
        path, values, photometric="rgb", planarconfig=planar, compression="zlib", predictor=predictor, byteorder=byteorder,
        **layout,
    )  # fmt: skip
    expected = tifffile.imread(path)
    expected = expected if planar == "separate" else expected.transpose(2, 0, 1)
    assert torch.equal(
        read_image(path), torch.from_numpy(expected.astype(np.float32) / np.float32(np.iinfo(values.dtype).max))
    )


def test_a_strip_that_is_not_stored_is_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), 7, np.uint16), compression="zlib", rowsperstrip=8)
    patch_tag(tmp_path / "a.tif", 279, 4, 0)
    assert not read_image(tmp_path / "a.tif").any()


# --- files without an end


def test_pages_in_a_circle(tmp_path: Path, refuses: Refuses) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16), metadata=None)
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    path.write_bytes(data)
    refuses(lambda: read_image(path), str(path), "circle")


def test_many_pages_are_not_all_walked(tmp_path: Path, refuses: Refuses) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((70, 4, 4), np.uint8), photometric="minisblack", metadata=None)
    refuses(lambda: read_image(tmp_path / "a.tif"), "more than 64 pages")


def test_entries_that_share_a_large_value_are_refused(tmp_path: Path, refuses: Refuses) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16), metadata=None)
    data = path.read_bytes() + bytes(1 << 16)
    entries = b"".join(struct.pack("<HHII", 273, 4, 16000, 512) for _ in range(2000))
    start = len(data)
    path.write_bytes(data[:4] + struct.pack("<I", start) + data[8:] + struct.pack("<H", 2000) + entries + bytes(4))
    refuses(lambda: read_image(path), "more values than the file has")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_opened(tmp_path: Path, refuses: Refuses) -> None:
    path = tmp_path / "x.png"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)  # so that a wrong program reads something instead of waiting
    try:
        os.write(end, bytes(100))
        refuses(lambda: read_image(path), str(path), "is a pipe or a device")
    finally:
        os.close(end)


def test_an_image_without_rows_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint16), compression="zlib")
    patch_tag(tmp_path / "a.tif", 257, 3, 0)
    refuses(lambda: read_image(tmp_path / "a.tif"), "9 x 0 px")


# --- no room, no range


@pytest.mark.parametrize("place", ["adcore_runtime.decode.decode_pillow", "adcore_runtime.image.to_planes"])
def test_no_memory_is_an_error_of_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, refuses: Refuses
) -> None:
    gray(4, 5).save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size

    def full(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(place, full)
    refuses(
        lambda: image_io.read_image(tmp_path / "a.png"), "a.png", "not enough memory", f"{size} bytes", "--skip-bad"
    )


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"photometric": "miniswhite"}])
def test_signed_8_bit_tiff_is_refused(tmp_path: Path, options: dict, refuses: Refuses) -> None:
    values = RNG.integers(-128, 127, (8, 9), dtype=np.int8)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    for read in (read_image, read_mask):
        refuses(lambda read=read: read(tmp_path / "a.tif"), "int8", "save as uint8")


def test_signed_8_bit_tiff_with_pillows_codec_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    gray(8, 9).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={339: 2})
    refuses(lambda: read_image(tmp_path / "a.tif"), "int8")


@pytest.mark.parametrize(
    ("photometric", "alpha"),
    [
        ("minisblack", None),
        ("minisblack", "unassalpha"),
        ("miniswhite", None),
        ("rgb", None),
        ("rgb", "unassalpha"),
        ("rgb", "assocalpha"),
        ("rgb", "unspecified"),
    ],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_8_bit_tiff_equals_pillow(tmp_path: Path, photometric: str, alpha: str | None, compression: str | None) -> None:
    channels = (3 if photometric == "rgb" else 1) + (alpha is not None)
    tifffile.imwrite(
        tmp_path / "a.tif",
        RNG.integers(0, 256, (18, 13, channels) if channels > 1 else (18, 13), dtype=np.uint8),
        photometric=photometric,
        extrasamples=alpha and [alpha],
        compression=compression,
        planarconfig="contig" if channels > 1 else None,
    )
    with Image.open(tmp_path / "a.tif") as image:
        expected = np.atleast_3d(np.asarray(image, np.float32)).transpose(2, 0, 1)
    expected = np.ascontiguousarray(expected[:3] if photometric == "rgb" else expected[[0, 0, 0]])
    assert torch.equal(read_image(tmp_path / "a.tif"), torch.from_numpy(expected / np.float32(255)))


def test_the_default_admits_a_50_megapixel_image() -> None:
    assert 100_000_000 <= adcore.settings.Settings().max_image_pixels <= 400_000_000
