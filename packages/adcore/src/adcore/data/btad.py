"""The BTAD layout: as MVTec AD, with `ok` for normal and `ko` for anomalous images."""

from __future__ import annotations

from typing import ClassVar

from adcore.data.builtin import BTAD_LAYOUT
from adcore.data.mvtec import MVTec


class BTAD(MVTec):
    """beanTech Anomaly Detection (Mishra et al. 2021): categories 01, 02, 03; masks may be .png beside .bmp images."""

    layout: ClassVar[str] = BTAD_LAYOUT
    normal: ClassVar[str] = "ok"
