"""TIFF files: with tifffile as far as it has the codec, otherwise with Pillow."""

from __future__ import annotations

import logging
import lzma
import math
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from adcore_runtime.decode_pillow import ORIENTATION, decode_pillow
from adcore_runtime.errors import DataError
from adcore_runtime.limits import Limit
from adcore_runtime.pixels import Pixels, check_size, upright, without_alpha
from adcore_runtime.tiff_directories import check_directories

if TYPE_CHECKING:
    from tifffile import TiffPage

logging.getLogger("tifffile").addHandler(
    logging.NullHandler()
)  # a broken file is one DataError, not a page of warnings

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, classic and BigTIFF
MAX_SEGMENTS = 1 << 17  # strips or tiles
PLAIN = 1  # no compression
INFLATE = {  # compression -> what unpacks one strip or tile; tifffile's own way has no limit to how much comes out
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lambda: lzma.LZMADecompressor(memlimit=1 << 28),
}
UNSIGNED, FLOATING, UNDEFINED = 1, 3, 4  # sample formats
PREMULTIPLIED = 1  # alpha


def decode_tiff(file: IO[bytes], path: Path, limit: Limit, channels: int = 3) -> Pixels:
    """Decode a file that begins with TIFF_MAGIC; DataError for several pages, and pixels without a known range."""
    import tifffile  # for these alone

    check_directories(file, path)
    file.seek(0)
    head = file.read(32)
    file.seek(0)
    with tifffile.TiffFile(file, is_lsm=False, is_ndpi=False, is_scanimage=False, is_stk=False) as tiff:
        pages = [page for page in tiff.pages if not page.is_reduced]  # thumbnails and pyramid levels do not count
        if len(pages) != 1:
            raise DataError(f"{path}: a TIFF of {len(pages)} pages; save each page as an image of its own")
        page = pages[0]
        _check_page(page, path, limit, channels)
        values = _tifffile_values(page, path) if _is_for_tifffile(page) else None
        if values is not None:
            orientation = page.tags.valueof(ORIENTATION, 1)
            return Pixels(upright(without_alpha(values, path, channels), orientation), "exact")
    pixels = decode_pillow(
        file, path, head, limit
    )  # up to 8 bits, and single channels of any depth, Pillow is lossless
    ink = page.bitspersample == 1 and page.photometric.name == "MINISWHITE"
    return pixels._replace(kind="ink") if ink else pixels


def _check_page(page: TiffPage, path: Path, limit: Limit, channels: int) -> None:
    """Refuse, before memory is taken, what is too large or has no known range."""
    if page.samplesperpixel > max(4, channels) or page.imagedepth != 1:
        found = page.samplesperpixel * page.imagedepth
        raise DataError(f"{path}: {found} channels, where the model takes {channels}; save gray, RGB or RGBA")
    known = (np.uint16, np.float16, np.float32, np.float64)
    if page.sampleformat not in (UNSIGNED, FLOATING, UNDEFINED) or (page.bitspersample > 8 and page.dtype not in known):
        raise DataError(f"{path}: {page.dtype} pixels have no known range; save as uint8, uint16 or float32")
    bytes_a_pixel = page.samplesperpixel * max(page.bitspersample // 8, 1)
    check_size(path, page.imagewidth, page.imagelength, limit, bytes_a_pixel)
    if page.is_tiled:
        check_size(path, page.tilewidth, page.tilelength, limit, bytes_a_pixel)
    if math.prod(page.chunked) > MAX_SEGMENTS:
        raise DataError(f"{path}: more than {MAX_SEGMENTS} strips or tiles; save it with larger ones")
    if sum(page.databytecounts) > 2 * page.parent.filehandle.size:
        raise DataError(f"{path}: its strips or tiles are larger than the file; copy it again from its source")


def _is_for_tifffile(page: TiffPage) -> bool:
    """Everything deep, where Pillow has no mode for colours; of 8 bits what both read, since libtiff prints messages."""
    if page.bitspersample > 8:
        return True
    return (
        page.dtype == np.uint8
        and page.bitspersample == 8
        and page.compression in (PLAIN, *INFLATE)
        and page.photometric.name in ("MINISBLACK", "MINISWHITE", "RGB")
        and PREMULTIPLIED not in page.extrasamples  # Pillow divides by such alpha
    )


def _tifffile_values(page: TiffPage, path: Path) -> np.ndarray | None:
    """(H, W) or (H, W, C); None where only Pillow has the codec."""
    if page.photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
        raise DataError(f"{path}: deep TIFF with {page.photometric.name} colours; save it as gray or RGB")
    name = page.compression.name
    try:
        values = _inflated(page) if page.compression in INFLATE else page.asarray()
    except (ValueError, KeyError, ModuleNotFoundError) as error:
        if "imagecodecs" not in str(error) and not isinstance(error, ModuleNotFoundError):
            raise
        if page.samplesperpixel == 1:
            return None
        raise DataError(
            f"{path}: {name} compression of a {page.bitspersample}-bit colour TIFF needs a codec; "
            "pip install imagecodecs, or save it with deflate or no compression"
        ) from None
    if values.ndim == 3 and page.axes.startswith("S"):  # one plane after the other
        values = np.moveaxis(values, 0, -1)
    if page.photometric.name == "MINISWHITE" and values.dtype in (np.uint8, np.uint16):
        values = ~values
    return values


def _inflated(page: TiffPage) -> np.ndarray:
    """The page's values; a strip or tile that unpacks to more than twice what it should hold is refused."""
    inflate = INFLATE[page.compression]
    page.compression = PLAIN  # so that `decode` takes what is unpacked here, and does the rest
    planes, _, height, width, samples = page.shaped
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    expected = rows * columns * samples * page.dtype.itemsize
    values = np.full((planes, height, width, samples), page.nodata, page.dtype)
    count = math.prod(page.chunked)
    if min(len(page.dataoffsets), len(page.databytecounts)) < count:
        raise ValueError(f"{len(page.dataoffsets)} of {count} strips or tiles")
    file = page.parent.filehandle
    for index, (offset, size) in enumerate(zip(page.dataoffsets[:count], page.databytecounts, strict=False)):
        if not size:  # sparse: not stored
            continue
        file.seek(offset)
        stream = inflate()
        unpacked = stream.decompress(file.read(size), 2 * expected)
        if not stream.eof:
            raise ValueError(f"strip or tile {index} is cut off or too large")
        block, (plane, _, top, left, _), _ = page.decode(unpacked, index)
        block = block[0, : height - top, : width - left]
        values[plane, top : top + block.shape[0], left : left + block.shape[1]] = block
    return values.reshape(page.shape)
