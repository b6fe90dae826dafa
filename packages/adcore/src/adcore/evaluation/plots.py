"""Plots of a run, as matplotlib Figures without global state (no pyplot, no display), and panels of single images.

The colours of Okabe and Ito can be distinguished by colour-blind readers; hatches and dashes serve black-and-white prints.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from adcore_runtime.overlay import COLOURS
from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from adcore.evaluation.metrics import as_array, checked_scores, is_anomalous, missing_class
from adcore.files import atomic_path

NORMAL_COLOR, ANOMALOUS_COLOR, LINE_COLOR = "#0072B2", "#D55E00", "#333333"
NORMAL_TINT, ANOMALOUS_TINT = "#7FB8D8", "#EAAE7F"  # opaque: the SVG writer draws a hatch over the full colour
CONTOUR_COLOR = "#56B4E9"
MESSAGE_COLOR = "#666666"
DPI = 150
FONT = str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))  # which the figures are written in, too
STRIP = 1 << 20  # pixels that become 8-bit colours at a time
COLUMN, GAP, TITLE = 288, 12, 32  # of a panel: width of a picture, space between two, height of the titles, in pixels


def score_histogram(scores: Any, labels: Any, threshold: float | None = None) -> Figure:
    """Histogram of the raw image scores (N,) of normal and anomalous images, with the threshold."""
    scores, labels = checked_scores(scores, labels)
    figure, axes = _figure("image score (raw)", "images")
    if not scores.size:
        return _message(figure, axes, "no image")
    edges = np.linspace(scores.min(), scores.max(), 26) if np.ptp(scores) > 0 else 10
    for name, chosen, color, tint, hatch in (
        ("normal", scores[~labels], NORMAL_COLOR, NORMAL_TINT, ""),
        ("anomalous", scores[labels], ANOMALOUS_COLOR, ANOMALOUS_TINT, "///"),
    ):
        style = {"histtype": "stepfilled", "facecolor": tint, "edgecolor": color, "linewidth": 1.2, "alpha": 0.75}
        axes.hist(chosen, edges, label=f"{name} ({chosen.size})", hatch=hatch, **style)
    if threshold is not None:
        axes.axvline(threshold, color=LINE_COLOR, linestyle="--", label=f"threshold {threshold:.4g}")
    axes.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def roc_plot(scores: Any, labels: Any, threshold: float | None = None) -> Figure:
    """ROC of the raw image scores (N,), with the point of the threshold."""
    scores, labels = checked_scores(scores, labels)
    figure, axes = _figure("false positive rate", "true positive rate")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":", label="chance")
    if reason := missing_class(labels):
        return _message(figure, axes, f"undefined: {reason}")
    from sklearn.metrics import auc, roc_curve

    fpr, tpr, _ = roc_curve(labels, scores)
    axes.plot(fpr, tpr, color=NORMAL_COLOR, linewidth=2, label=f"AUROC {auc(fpr, tpr):.3f}")
    if threshold is not None:
        predicted = is_anomalous(scores, threshold)
        point = predicted[~labels].mean(), predicted[labels].mean()
        axes.plot(*point, "o", color=ANOMALOUS_COLOR, markersize=8, label="at the threshold")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def sample_panel(
    image: Any, anomaly_map: Any, mask: Any = None, value_range: tuple[float, float] | None = None
) -> Image.Image:
    """One sample in a row: image | anomaly map over the image | true mask.

    `image`: (C, H, W) float, shown as it is within [0, 1], else stretched; `anomaly_map`: (H, W) raw, or None;
    `mask`: (H, W) bool, or None where unknown; maps and masks of another size still cover the image. `value_range`: raw map
    values (lowest, highest) of the colour scale; give all panels one range (`shared_range`), otherwise the map of a normal
    image looks like a defect.
    """
    image = displayed(np.asarray(as_array(image), np.float32))
    height, width = image.shape[:2]
    size = (COLUMN, max(1, round(COLUMN * height / width)))
    photo = in_8_bits(image).resize(size)
    pictures: list[Image.Image | str] = [photo, "no anomaly map", "not known"]
    if anomaly_map is not None:
        heat = np.asarray(as_array(anomaly_map), np.float32)
        low, high = value_range or (float(heat.min()), float(heat.max()))
        level = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)
        level = np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BILINEAR))[..., None]
        alpha = level**0.75 * 0.9  # low values show the image
        gray = np.asarray(photo, np.float32).mean(axis=2, keepdims=True) / 255 * 0.75
        pictures[1] = in_8_bits(gray * (1 - alpha) + COLOURS[(level[..., 0] * 255).astype(np.uint8)] * alpha)
    if mask is not None:
        area = Image.fromarray(np.asarray(as_array(mask), bool).astype(np.uint8) * 255)
        area = area.resize(size, Image.Resampling.NEAREST)
        pictures[2] = area
        if anomaly_map is not None:
            pictures[1].paste(CONTOUR_COLOR, mask=ImageChops.subtract(area.filter(ImageFilter.MaxFilter(5)), area))
    panel = Image.new("RGB", (3 * COLUMN + 4 * GAP, TITLE + size[1] + GAP), "white")
    draw, font = ImageDraw.Draw(panel), ImageFont.truetype(FONT, 18)
    for column, (title, picture) in enumerate(zip(("image", "anomaly map", "true mask"), pictures, strict=True)):
        left = GAP + column * (COLUMN + GAP)
        middle = left + COLUMN // 2
        draw.text((middle, TITLE // 2), title, "black", font, anchor="mm")
        if isinstance(picture, str):
            draw.text((middle, TITLE + size[1] // 2), picture, MESSAGE_COLOR, font, anchor="mm")
        else:
            panel.paste(picture, (left, TITLE))
    return panel


def in_8_bits(values: np.ndarray) -> Image.Image:
    """(H, W, 3) in [0, 1] as 8-bit colours, made in strips, since an image may be large."""
    levels = np.empty(values.shape, np.uint8)
    height = max(1, STRIP // levels.shape[1])
    for start in range(0, len(levels), height):
        part = slice(start, start + height)
        levels[part] = (values[part] * 255).round()
    return Image.fromarray(levels)


def shared_range(maps: Sequence[Any]) -> tuple[float, float]:
    """Colour range for the panels of one run: from the median of all maps to their highest value."""
    ranges = [(np.median(map_), map_.max()) for map_ in (np.asarray(as_array(one), np.float32) for one in maps)]
    return float(np.median([middle for middle, _ in ranges])), float(max(high for _, high in ranges))


def pick_samples(scores: Any, labels: Any, threshold: float | None, limit: int = 12) -> list[tuple[int, str]]:
    """The most informative samples, as (index, reason), at most `limit`.

    Misses and false alarms first, the largest errors first; then those nearest to the threshold, then the most anomalous.
    The groups take turns until all places are taken, so that each is shown.
    """
    scores, labels = checked_scores(scores, labels)
    order = [int(i) for i in np.argsort(-scores, kind="stable")]
    groups: dict[str, list[int]] = {}
    if threshold is not None:
        predicted = is_anomalous(scores, threshold)
        groups["missed"] = [i for i in reversed(order) if labels[i] and not predicted[i]]
        groups["false alarm"] = [i for i in order if predicted[i] and not labels[i]]
        groups["least certain"] = sorted(order, key=lambda i: abs(scores[i] - threshold))
    groups["most anomalous"] = order
    picked: dict[int, str] = {}
    while len(picked) < min(limit, len(order)):
        for why, members in groups.items():
            worst = next((i for i in members if i not in picked), None)
            if worst is not None and len(picked) < limit:
                picked[worst] = why
    ranks = list(groups)
    return sorted(picked.items(), key=lambda pair: ranks.index(pair[1]))


def save_figure(figure: Figure | Image.Image, path: str | Path) -> None:
    """Write the figure (format by suffix: .png, .svg, .pdf, .jpg); the file appears complete or not at all."""
    with atomic_path(path) as temporary:
        if isinstance(figure, Image.Image):
            figure.save(temporary, compress_level=1)  # of PNG: a tenth of the time, a little larger
        else:
            figure.savefig(temporary, dpi=DPI)


def figure_data_uri(figure: Figure | Image.Image, kind: str = "png") -> str:
    """The figure as a data URI, to stand in an html file by itself; `kind`: "svg" for lines, "jpeg" for photographs, "png"."""
    buffer = io.BytesIO()
    if isinstance(figure, Image.Image):
        figure.save(buffer, kind)
    else:
        figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    mime = "svg+xml" if kind == "svg" else kind
    return f"data:image/{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _message(figure: Figure, axes: Axes, text: str) -> Figure:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=MESSAGE_COLOR)
    return figure


def displayed(image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (H, W, 3) in [0, 1]; values outside (a raw TIFF, a normalised tensor) are stretched to it.

    Other numbers of channels than three are shown as their mean.
    """
    image = image.transpose(1, 2, 0)
    image = image if image.shape[2] == 3 else image.mean(2, keepdims=True).repeat(3, axis=2)
    low, high = float(image.min()), float(image.max())
    return image if low >= 0 and high <= 1 else (image - low) / max(high - low, 1e-12)
