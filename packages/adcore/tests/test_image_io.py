"""Files must come out as they say: exact values, right way up, or one clear error."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from adcore.data.image_io import image_from_array, read_image, read_mask, write_image
from adcore.errors import DataError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

RNG = np.random.default_rng(0)
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png16(values: np.ndarray, interlaced: bool = False) -> bytes:
    """Encode (H, W, C) uint16 as PNG, every row with another of the five filters (no library at hand writes this)."""
    height, width, channels = values.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    passes = [values[top::down, left::across] for top, left, down, across in ADAM7] if interlaced else [values]
    data = b"".join(_filtered(part) for part in passes if part.size)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, int(interlaced))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _filtered(values: np.ndarray) -> bytes:
    step = 2 * values.shape[2]
    rows = np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(len(values), -1).astype(int)
    above, out = np.zeros_like(rows[0]), b""
    for number, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
        nearer = np.where(to_above <= to_corner, above, corner)
        paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, nearer)
        guess = [0, left, above, (left + above) // 2, paeth][number % 5]
        out += bytes([number % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def three(values: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, 3) -> the (3, H, W) float32 that reading must give."""
    values = np.asarray(values, np.float32)
    return torch.from_numpy(
        np.stack([values] * 3) if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))
    )


# --- exact values


@pytest.mark.parametrize("shape", [(5, 9), (5, 9, 3), (3, 5, 9)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_float_tiff_is_unclipped(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    values = RNG.uniform(-3.5, 12, shape).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if len(shape) == 3 else "minisblack")
    upright = values.transpose(1, 2, 0) if shape[0] == 3 else values  # one plane after the other
    assert torch.equal(read_image(tmp_path / "a.tif"), three(upright))


@pytest.mark.parametrize(
    "options", [{"byteorder": ">"}, {"bigtiff": True}, {"compression": "zlib"}, {"tile": (16, 16)}]
)
def test_tiff_variants(tmp_path: Path, options: dict) -> None:
    values = RNG.integers(0, 65536, (20, 31, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    assert torch.equal(read_image(tmp_path / "a.tif"), three(values / np.float32(65535)))


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_deep_gray_tiff_with_a_codec_that_only_pillow_has(tmp_path: Path, dtype: type) -> None:
    values = RNG.integers(0, 65536, (20, 31)).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert torch.equal(read_image(tmp_path / "a.tif"), three(values / np.float32(65535 if dtype == np.uint16 else 1)))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_8_bit_tiff(tmp_path: Path, compression: str | None) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8))
    image.save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as again:
        assert torch.equal(read_image(tmp_path / "a.tif"), three(np.asarray(again) / np.float32(255)))


def test_white_is_zero_tiff(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (4, 6), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - values, photometric="miniswhite")
    assert torch.equal(read_image(tmp_path / "a.tif"), three(values / np.float32(65535)))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_is_lossless(tmp_path: Path, channels: int, interlaced: bool) -> None:
    values = RNG.integers(0, 65536, (23, 17, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png16(values, interlaced))
    color = values[..., :3] if channels > 2 else values[..., 0]
    assert torch.equal(read_image(tmp_path / "a.png"), three(color / np.float32(65535)))


def test_8_bit_values_are_divided_by_255(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert torch.equal(image, three(values / np.float32(255)))
    image[0] = 0.5  # three channels of their own, not three views of one
    assert torch.equal(image[1:], three(values / np.float32(255))[1:])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_common_formats_equal_pillow(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert torch.equal(read_image(tmp_path / f"a{suffix}"), three(np.asarray(image) / np.float32(255)))


def test_gray_jpeg_has_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (24, 40), dtype=np.uint8)).save(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (3, 24, 40)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (6, 7, 4), dtype=np.uint8)
    values[..., 3] = 0  # fully transparent
    Image.fromarray(values).save(tmp_path / "rgba.png")
    assert torch.equal(read_image(tmp_path / "rgba.png"), three(values[..., :3] / np.float32(255)))
    Image.fromarray(values[..., :2], mode="LA").save(tmp_path / "la.png")
    assert torch.equal(read_image(tmp_path / "la.png"), three(values[..., 0] / np.float32(255)))


def test_palette_gives_its_colours(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    colours = np.array([[10, 20, 30], [200, 100, 0], [7, 7, 7]], np.uint8)
    index = RNG.integers(0, 3, (6, 7), dtype=np.uint8)
    image = Image.fromarray(index, mode="P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert torch.equal(read_image(tmp_path / "a.png"), three(colours[index] / np.float32(255)))
    assert not [warning for warning in recwarn if "ransparency" in str(warning.message)]


def test_one_bit_png_is_black_and_white(tmp_path: Path) -> None:
    values = RNG.integers(0, 2, (6, 11)).astype(bool)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), three(values))


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    colour = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert (read_image(tmp_path / "a.jpg") - three(colour / 255)).abs().max() < 0.03


TURN = Image.Transpose
UPRIGHT = {1: None, 2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM}  # EXIF 2.3, tag 0x0112
UPRIGHT |= {5: TURN.TRANSPOSE, 6: TURN.ROTATE_270, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_90}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_exif_orientation_is_applied_to_images_and_masks(tmp_path: Path, orientation: int, suffix: str) -> None:
    values = np.kron(RNG.integers(0, 2, (3, 5), dtype=np.uint8) * 255, np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(values).save(path, exif=exif, quality=100)
    turn = UPRIGHT[orientation]
    expected = values if turn is None else np.array(Image.fromarray(values).transpose(turn))
    image = read_image(path)
    assert image.shape == (3, *expected.shape)
    assert (image - three(expected / 255)).abs().max() < (0.05 if suffix == ".jpg" else 1e-6)
    assert torch.equal(read_mask(path), torch.from_numpy(expected > 127))


def test_orientation_of_deep_tiff(tmp_path: Path) -> None:
    values = RNG.random((4, 6), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(0x0112, "H", 1, 6, True)])
    assert torch.equal(read_image(tmp_path / "a.tif"), three(np.rot90(values, -1)))


def test_the_content_counts_not_the_suffix(tmp_path: Path) -> None:
    values = RNG.random((4, 6), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    (tmp_path / "a.tif").rename(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), three(values))


@given(
    arrays(
        np.float32,
        st.tuples(st.just(3), st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_written_tiff_reads_back_exactly(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("tiff") / "a.tiff"
    write_image(path, torch.from_numpy(values))
    assert torch.equal(read_image(path), torch.from_numpy(values))


def test_written_png_is_rounded_and_masks_read_back(tmp_path: Path) -> None:
    image = torch.rand(3, 4, 5)
    write_image(tmp_path / "a.png", image)
    assert (read_image(tmp_path / "a.png") - image).abs().max() <= 0.5 / 255 + 1e-6
    mask = torch.rand(6, 3) > 0.5
    write_image(tmp_path / "m.png", mask)
    assert torch.equal(read_mask(tmp_path / "m.png"), mask)
    with pytest.raises(DataError, match="from 0 to 1"):
        write_image(tmp_path / "b.png", image * 2)
    with pytest.raises(DataError, match="tiff"):
        write_image(tmp_path / "b.gif", image)
    assert not (tmp_path / "b.png").exists()


# --- arrays


@pytest.mark.parametrize(("dtype", "highest"), [(np.uint8, 255), (np.uint16, 65535), (">u2", 65535), (np.float32, 1)])
@pytest.mark.parametrize("shape", [(5, 9), (5, 9, 1), (5, 9, 3)])
def test_arrays_have_the_range_of_their_type(dtype: type, highest: int, shape: tuple[int, ...]) -> None:
    values = (RNG.random(shape) * highest * (3 if highest == 1 else 1)).astype(dtype)
    expected = three((values[..., 0] if shape[2:] == (1,) else values) / np.float32(highest))
    assert torch.equal(image_from_array(values), expected)
    assert torch.equal(image_from_array(values[::-1]), expected.flip(1))  # a view


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5), bool),
        np.zeros((4, 5), np.float64),
        np.zeros((4, 5), np.int8),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.zeros(5, np.uint8),
        np.array(0, np.uint8),
        np.full((4, 5), "a"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, refuses: Callable[..., None]) -> None:
    refuses(
        lambda: image_from_array(array), str(array.shape), str(array.dtype), "(H, W, 3) of uint8, uint16 or float32"
    )


def test_an_array_with_nan_is_refused(refuses: Callable[..., None]) -> None:
    refuses(lambda: image_from_array(np.array([[0.0, np.nan]], np.float32)), "1 NaN or infinite")


# --- bad input: one clear line with the path


def assert_clear(path: Path, *words: str) -> None:
    for read in (read_image, read_mask):
        with pytest.raises(DataError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        assert all(word in message for word in words), message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(tmp_path: Path, value: float) -> None:
    values = RNG.random((4, 6), np.float32)
    values[1, 2] = value
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert_clear(tmp_path / "a.tif", "NaN or infinite")


def test_float64_that_overflows_float32(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[1e300, 0.0]]))
    with pytest.raises(DataError, match="1 NaN or infinite"):
        read_image(tmp_path / "a.tif")


def test_files_that_are_not_there_or_not_images(tmp_path: Path) -> None:
    assert_clear(tmp_path / "none.png", "no such file")
    assert_clear(tmp_path, "folder")
    (tmp_path / "empty.png").touch()
    assert_clear(tmp_path / "empty.png", "empty (0 bytes)", "--skip-bad")
    (tmp_path / "text.png").write_text("this is not an image, though it is called one")
    assert_clear(tmp_path / "text.png", "PNG", "copy it again")


def test_more_than_one_picture_in_a_file(tmp_path: Path) -> None:
    pages = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    assert_clear(tmp_path / "pages.tif", "3 pages")
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "moving.png", save_all=True, append_images=rest)
    assert_clear(tmp_path / "moving.png", "3 frames")


def test_a_camera_preview_behind_a_jpeg_is_passed_over(tmp_path: Path) -> None:
    main, preview = (Image.fromarray(RNG.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (24, 8))
    main.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "a.jpg").shape == (3, 24, 24)


def test_thumbnails_inside_a_tiff_are_no_pages(tmp_path: Path) -> None:
    values = RNG.random((32, 32), np.float32)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values)
        writer.write(values[::4, ::4], subfiletype=1)
    assert torch.equal(read_image(tmp_path / "a.tif"), three(values))


def test_channels_and_depths_without_a_meaning(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "five.tif", RNG.random((8, 9, 5), np.float32), photometric="minisblack", planarconfig="contig"
    )
    assert_clear(tmp_path / "five.tif", "5 channels")
    for dtype in (np.int16, np.int32, np.uint32):
        tifffile.imwrite(tmp_path / "deep.tif", np.zeros((4, 4), dtype))
        assert_clear(tmp_path / "deep.tif", np.dtype(dtype).name, "float32")


def test_deep_colour_tiff_without_codec_is_refused_not_reduced(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (8, 9, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values)
    data = (tmp_path / "a.tif").read_bytes()
    tag = data.index(struct.pack("<HHI", 259, 3, 1)) + 8  # the entry "compression: none", made to say LZW
    (tmp_path / "a.tif").write_bytes(data[:tag] + struct.pack("<H", 5) + data[tag + 2 :])
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        assert_clear(tmp_path / "a.tif", "LZW", "imagecodecs")


@pytest.mark.parametrize("kind", ["png", "png16", "jpg", "bmp", "webp", "tif8", "tif16", "tif_zlib", "tif_lzw"])
def test_no_truncation_goes_unnoticed(tmp_path: Path, kind: str) -> None:
    """Cut anywhere, a file is either refused or gives every pixel (only trailing bytes without content were lost)."""
    deep = RNG.integers(0, 65536, (19, 23, 3), dtype=np.uint16)
    image, path = Image.fromarray((deep >> 8).astype(np.uint8)), tmp_path / f"a.{kind[:3]}"
    if kind == "png16":
        path.write_bytes(png16(deep))
    elif kind in ("tif16", "tif_zlib"):
        tifffile.imwrite(path, deep, compression="zlib" if kind == "tif_zlib" else None)
    elif kind == "webp":
        path = tmp_path / "a.webp"
        image.save(path)
    else:
        image.save(path, **({"compression": "tiff_lzw"} if kind == "tif_lzw" else {}))
    whole, data = read_image(path), path.read_bytes()
    refused = 0
    for length in sorted(
        {1, 4, 9, 26, *range(30, len(data), max(len(data) // 60, 1)), *range(len(data) - 6, len(data))}
    ):
        path.write_bytes(data[:length])
        try:
            image = read_image(path)
        except DataError:
            refused += 1
        else:
            assert torch.equal(image, whole), f"{length} of {len(data)} bytes gave another image"
    assert refused >= 40


# --- real files


def test_real_photographs_equal_pillow(real_data: Path) -> None:
    paths = [
        *sorted((real_data / "mvtec/hazelnut/train/good").iterdir())[:2],
        *sorted((real_data / "magtile/train/good").iterdir())[:2],
    ]
    for path in paths:
        with Image.open(path) as image:
            assert torch.equal(read_image(path), three(np.asarray(image.convert("RGB")) / np.float32(255)))
