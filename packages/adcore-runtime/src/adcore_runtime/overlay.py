"""Overlays: an anomaly map drawn over its photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from adcore_runtime.files import atomic_path
from adcore_runtime.geometry import STRIP, Frame

# matplotlib's colour map "inferno" (CC0), from dark to bright: red, green, blue in hexadecimal for each of 256 levels
INFERNO = bytes.fromhex(
    "00000401000501010601010802010a02020c02020e03021004031204031405041706041907051b08051d09061f0a07220b07240c0826"
    "0d08290e092b10092d110a30120a32140b34150b37160b39180c3c190c3e1b0c411c0c431e0c451f0c48210c4a230c4c240c4f260c51"
    "280b53290b552b0b572d0b592f0a5b310a5c320a5e340a5f3609613809623909633b09643d09653e0966400a67420a68440a68450a69"
    "470b6a490b6a4a0c6b4c0c6b4d0d6c4f0d6c510e6c520e6d540f6d550f6d57106e59106e5a116e5c126e5d126e5f136e61136e62146e"
    "64156e65156e67166e69166e6a176e6c186e6d186e6f196e71196e721a6e741a6e751b6e771c6d781c6d7a1d6d7c1d6d7d1e6d7f1e6c"
    "801f6c82206c84206b85216b87216b88226a8a226a8c23698d23698f24699025689225689326679526679727669827669a28659b2964"
    "9d29649f2a63a02a63a22b62a32c61a52c60a62d60a82e5fa92e5eab2f5ead305dae305cb0315bb1325ab3325ab43359b63458b73557"
    "b93556ba3655bc3754bd3853bf3952c03a51c13a50c33b4fc43c4ec63d4dc73e4cc83f4bca404acb4149cc4248ce4347cf4446d04545"
    "d24644d34743d44842d54a41d74b3fd84c3ed94d3dda4e3cdb503bdd513ade5238df5337e05536e15635e25734e35933e45a31e55c30"
    "e65d2fe75e2ee8602de9612bea632aeb6429eb6628ec6726ed6925ee6a24ef6c23ef6e21f06f20f1711ff1731df2741cf3761bf37819"
    "f47918f57b17f57d15f67e14f68013f78212f78410f8850ff8870ef8890cf98b0bf98c0af98e09fa9008fa9207fa9407fb9606fb9706"
    "fb9906fb9b06fb9d07fc9f07fca108fca309fca50afca60cfca80dfcaa0ffcac11fcae12fcb014fcb216fcb418fbb61afbb81dfbba1f"
    "fbbc21fbbe23fac026fac228fac42afac62df9c72ff9c932f9cb35f8cd37f8cf3af7d13df7d340f6d543f6d746f5d949f5db4cf4dd4f"
    "f4df53f4e156f3e35af3e55df2e661f2e865f2ea69f1ec6df1ed71f1ef75f1f179f2f27df2f482f3f586f3f68af4f88ef5f992f6fa96"
    "f8fb9af9fc9dfafda1fcffa4"
)
COLOURS = np.frombuffer(INFERNO, np.uint8).reshape(256, 3) / np.float32(255)


def colour_range(anomaly_map: np.ndarray, normal: tuple[float, float] | None) -> tuple[float, float]:
    """The raw values that are drawn without colour and in full colour.

    `normal`, of the calibration: the median and the highest value of normal images' maps. Full colour is twice as far
    from the median as the highest value of a normal image. Without a calibration the map itself gives both.
    """
    if normal is None:
        return float(np.median(anomaly_map)), float(anomaly_map.max())
    median, highest = normal
    return median, median + 2 * (highest - median)


def write_overlay(
    path: Path, photo: np.ndarray, anomaly_map: np.ndarray, low: float, high: float, frame: Frame
) -> None:
    """Write a PNG of the photo's own size: gray where the raw map is at `low`, full colour from `high` on.

    `photo`: (H, W) uint8; `anomaly_map`: (h, w) raw, which lies in the photo as `frame` says; what a crop cut off, or
    does not count, is gray.
    """
    part = anomaly_map[frame.inside(anomaly_map.shape)].astype(np.float32)
    part -= low  # in place: the map of a large image is large
    part /= max(high - low, 1e-12)
    part.clip(0, 1, out=part)
    level, shown = np.zeros(photo.shape, np.float32), frame.shown(anomaly_map.shape)
    if part.shape == level[shown].shape:
        level[shown] = part
    elif level[shown].size:
        level[shown] = Image.fromarray(part).resize(level[shown].shape[::-1], Image.Resampling.BILINEAR)
    del part
    if frame.roi:
        level *= frame.roi.mask
    drawn = np.empty((*photo.shape, 3), np.uint8)
    step = max(1, STRIP // photo.shape[1])  # a large photograph takes little more memory than the picture
    for rows in (slice(start, start + step) for start in range(0, len(photo), step)):
        index = (level[rows] * 255).round().astype(np.uint8)
        alpha = level[rows] * np.float32(0.85)
        gray = photo[rows] * np.float32(0.75 / 255) * (1 - alpha)
        for channel in range(3):  # one at a time: three values of a pixel beside one another take longer
            drawn[rows, :, channel] = ((gray + COLOURS[index, channel] * alpha) * 255).round()
    with atomic_path(path) as temporary:
        Image.fromarray(drawn).save(temporary)
