"""Scores for a threshold that cost no training image: each is scored by a model that learned from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from adcore.data.splits import cross_folds
from adcore.evaluation.evaluate import map_ranges
from adcore.evaluation.score import Scoring, score_samples, without_maps
from adcore.prepared import Prepared
from adcore.registry import create_model
from adcore.training.device import seed_everything
from adcore.training_run import train_model


def cross_validated(
    run: Prepared,
    folds: int,
    device: torch.device,
    progress: Callable[[str, int, int], None] | None = None,
    folder: Path | None = None,
) -> tuple[Scoring, list[tuple[float, float]] | None]:
    """Scores of the normal training images of `run`, and their `map_ranges`.

    One model after the other is trained as the run's own, without the images of one fold, which it then scores. No more than
    one of them, and the maps of one fold, are in memory, or in a file in `folder` (see `score_samples`).
    """
    choice, scoring = run.choice, Scoring()
    ranges: list[tuple[float, float]] | None = []
    for number, fold in enumerate(cross_folds(run.samples, folds, choice.plan.seed)):
        left_out = set(fold)
        part = replace(run, samples=[sample for sample in run.samples if sample not in left_out])
        seed_everything(choice.plan.seed)
        model = create_model(choice.card.name, **choice.config)
        train_model(model, part, device)
        view, skip_bad = choice.preprocess, run.data.skip_bad
        scored = score_samples(model, view, run.reader, fold, device, skip_bad, statistics=True, folder=folder)
        found = map_ranges(scored)
        ranges = None if ranges is None or found is None else [*ranges, *found]
        scoring.images += without_maps(scored).images
        scoring.seconds += scored.seconds
        if progress:
            progress("calibrate", number + 1, folds)
    return scoring, ranges
