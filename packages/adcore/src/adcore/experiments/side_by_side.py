"""The same images as several models see them, from the pictures of their reports, where the models disagree most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from adcore.evaluation.web_page import read_data
from adcore.experiments.collect import Measured

IMAGES, METHODS = 8, 6  # shown of a domain


def side_by_side(runs: Sequence[Measured]) -> list[dict[str, Any]]:
    """One entry for each source on which two methods have reports with pictures of the same images.

    `domain`, `methods`, and `images`: path, defect, label, photo, mask, and `seen`, for each method score, whether it is above
    the threshold (None without one) and the map. Of a method, the run with the lowest seed is shown.
    """
    by_source: dict[str, dict[str, Measured]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.seed):
        by_source[run.source].setdefault(run.method, run)
    found = []
    for source, methods in by_source.items():
        pages = {}
        for name, run in methods.items():
            page = read_data(run.folder / "report.html") if run.folder and len(pages) < METHODS else None
            if page and page.get("images"):
                pages[name] = page
        if len(pages) > 1 and (images := _images(list(pages.values()))):
            found.append({"domain": source, "methods": list(pages), "images": images})
    return found


def _images(pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Anomalous and normal images that all pages picture: verdicts that differ first, then places among the normal images."""
    tables = [{one["path"]: one for one in page["images"]} for page in pages]
    common = [path for path in tables[0] if all("photo" in table.get(path, {}) for table in tables)]
    if not common:
        return []
    places = np.array([_places(table, common) for table in tables])  # (pages, images), in [0, 1]
    above = [[one["flagged"] for one in _seen_by(tables, pages, path)] for path in common]
    order = sorted(range(len(common)), key=lambda i: (len(set(above[i])) < 2, -np.ptp(places[:, i])))
    anomalous = [i for i in order if tables[0][common[i]]["label"]]
    normal = [i for i in order if not tables[0][common[i]]["label"]]
    half = max(IMAGES // 2, IMAGES - len(normal))
    chosen = anomalous[:half]
    chosen += normal[: IMAGES - len(chosen)]
    return [
        {key: tables[0][path][key] for key in ("path", "defect", "label", "photo", "mask")}
        | {"seen": _seen_by(tables, pages, path)}
        for path in (common[i] for i in chosen)
    ]


def _places(table: dict[str, dict[str, Any]], paths: list[str]) -> np.ndarray:
    """The share of normal images with a lower score, for each of `paths`: scores of several models become comparable."""
    normal = np.sort([one["score"] for one in table.values() if not one["label"]])
    return np.searchsorted(normal, [table[path]["score"] for path in paths]) / max(1, len(normal))


def _seen_by(tables: list[dict[str, Any]], pages: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """What each model says of the image `path`."""
    found = []
    for table, page in zip(tables, pages, strict=True):
        image, threshold = table[path], page["threshold"]
        flagged = None if threshold is None else image["score"] >= threshold
        found.append({"score": image["score"], "flagged": flagged, "map": image["map"]})
    return found
