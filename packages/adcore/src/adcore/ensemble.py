"""Several trained models as one: their scores made comparable on normal images, and combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from adcore.artifact import Artifact
from adcore.backbones.shared import SharedRun, share
from adcore.cards import ModelCard
from adcore.data.samples import NORMAL
from adcore.errors import ConfigError, DataError
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.score import Scoring, score_samples
from adcore.model import AnomalyModel, BatchModel, Prediction
from adcore.preprocess import Preprocess
from adcore.recalibration import calibration_images
from adcore.registry import create_model, register
from adcore.request import DataChoice
from adcore.training.device import pick_device

NAME, KNOTS = "ensemble", 101  # points of the stored distribution of a member's normal scores
CARD = ModelCard(
    name=NAME,
    target="adcore.ensemble:Ensemble",
    family="ensemble",
    title="Ensemble",
    paper="of adcore: scores by their place among those of normal images",
    year=2026,
    summary="Several trained models, whose scores are made comparable and combined.",
    normalization="none",
    training="none",
    not_exportable="it holds several models; export each of them",
    licence="Apache-2.0",
)


class Member(BaseModel):
    """One model of an ensemble, and how its values become comparable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    model: str
    config: dict[str, Any]
    mean: tuple[float, ...] | None = None  # of its preprocessing
    std: tuple[float, ...] | None = None
    scores: tuple[float, ...] = Field(min_length=2)  # of normal images, at equal steps of their distribution, ascending
    map_range: tuple[float, float] | None = None  # median and highest value of the normal images' maps


def comparable(scores: Tensor, knots: Tensor) -> Tensor:
    """Scores (B,) by their place among `knots` (K,), normal scores in ascending order: 0 at the lowest, 1 at the highest.

    Beyond the highest it goes on in a straight line, 1 for each distance from the median to the highest; below the lowest
    likewise, so that no two scores become equal.
    """
    median, low, high = knots[len(knots) // 2], knots[0], knots[-1]
    place = torch.searchsorted(knots, scores.contiguous()).clamp(1, len(knots) - 1)
    below, above = knots[place - 1], knots[place]
    inside = (place - 1 + (scores - below) / (above - below).clamp(min=1e-12)) / (len(knots) - 1)
    scale = max(float(high.abs()), 1.0) * 1e-6  # where all normal scores are equal
    over = 1 + (scores - high) / (high - median).clamp(min=scale)
    under = -(low - scores) / (median - low).clamp(min=scale)
    return torch.where(scores > high, over, torch.where(scores < low, under, inside))


class Ensemble(AnomalyModel):
    """Scores an image by each member's comparable score, and combines them; maps likewise.

    Input (B, C, H, W) in [0, 1], not normalised: each member normalises it as it was trained. A score of 1 is that of the
    highest normal image. A map is the mean over the members that have one. A frozen network that members have in common, with
    the same weights and normalisation, runs once for an image.
    """

    def __init__(
        self,
        members: Annotated[
            tuple[dict[str, Any], ...], Field(description="the models, as `adcore ensemble` stores them")
        ] = (),
        combine: Annotated[Literal["mean", "max"], Field(description="how comparable scores become one")] = "mean",
        weights: Annotated[tuple[float, ...], Field(description="of the members in the mean; none: equal")] = (),
    ) -> None:
        super().__init__()
        try:
            self.members = [Member(**one) for one in members]
        except ValidationError as error:
            raise ConfigError(f"members: {error.errors()[0]['msg']}") from None
        if len(self.members) < 2:
            raise ConfigError("an ensemble needs at least two models")
        if weights and (len(weights) != len(self.members) or min(weights) < 0 or not sum(weights) > 0):
            raise ConfigError(f"weights: give one for each of the {len(self.members)} models, none negative, not all 0")
        self.combine, self.shares = combine, [w / sum(weights or [1]) for w in weights] or None
        self.parts = nn.ModuleList(create_model(one.model, **_tuples(one.config)) for one in self.members)
        for part in self.parts:
            part.fitted = True
        self.shared: list[SharedRun] = []  # networks that several members use

    def warm_up(self) -> None:
        """Find the networks that members have in common, then as every model."""
        self.shared = share(self.parts)
        super().warm_up()

    def forward(self, images: Tensor) -> Prediction:
        """Comparable scores and maps, combined."""
        views = {(one.mean, one.std): _normalised(images, one) for one in self.members}
        try:
            predictions = [part(views[one.mean, one.std]) for one, part in zip(self.members, self.parts, strict=True)]
        finally:
            for run in self.shared:
                run.forget()
        scores, maps = [], []
        for member, prediction in zip(self.members, predictions, strict=True):
            knots = torch.tensor(member.scores, dtype=torch.float32, device=images.device)
            scores.append(comparable(prediction.score.float(), knots))
            if prediction.anomaly_map is not None and member.map_range is not None:
                low, high = member.map_range
                maps.append((prediction.anomaly_map.float() - low) / max(high - low, 1e-12))
        together = torch.stack(scores, 1)  # (B, members)
        if self.combine == "max":
            score = together.amax(1)
        elif self.shares:
            score = together @ together.new_tensor(self.shares)
        else:
            score = together.mean(1)
        return Prediction(score, torch.stack(maps).mean(0) if maps else None)


def make_ensemble(
    artifacts: Sequence[Artifact],
    data: DataChoice,
    method: str,
    split: str | None = None,
    combine: Literal["mean", "max"] = "mean",
    weights: Sequence[float] = (),
    device: str = "auto",
) -> tuple[Artifact, Scoring]:
    """The trained models as one artifact, calibrated on the images of `data`, and its scores of them.

    The normal images there make the members' scores comparable; `method` chooses the threshold on all of them. `split` as for
    `recalibrated`. Raises ConfigError for models that do not see images alike, DataError for too few normal images.
    """
    register(CARD)
    preprocess = _common_preprocess(artifacts)
    reader, chosen, split = calibration_images(data, method, split)
    normal = [sample for sample in chosen if sample.label == NORMAL]
    if len(normal) < 2:
        raise DataError(f"{data.root} has {len(normal)} normal image there; scores are made comparable on two or more")
    chosen_device, members = pick_device(device), []
    for one in artifacts:
        one.model.to(chosen_device)
        scoring = score_samples(one.model, one.preprocess, reader, normal, chosen_device, data.skip_bad)
        members.append(_member(one, scoring))
    model = create_model(NAME, members=tuple(members), combine=combine, weights=tuple(weights))
    for place, one in enumerate(artifacts):
        model.parts[place] = one.model
    model.fitted = True
    model.to(chosen_device).eval()
    scoring = score_samples(model, preprocess, reader, chosen, chosen_device, data.skip_bad)
    calibration = evaluation.calibrate(scoring, method, split)
    training = {
        "dataset": data.dataset,
        "category": data.category,
        "members": [one.model.card.name for one in artifacts],
    }
    return Artifact(model, preprocess, calibration, training), scoring


def _member(artifact: Artifact, scoring: Scoring) -> dict[str, Any]:
    """The stored form of a model and its normal scores."""
    knots = np.quantile(scoring.scores.astype(np.float64), np.linspace(0, 1, KNOTS))
    ranges = evaluation.map_ranges(scoring)
    low, high = (float(np.median([r[0] for r in ranges])), max(r[1] for r in ranges)) if ranges else (0.0, 0.0)
    view = artifact.preprocess
    return {
        "model": artifact.model.card.name,
        "config": artifact.model.config,
        "mean": view.mean,
        "std": view.std,
        "scores": tuple(knots.tolist()),
        "map_range": (low, high) if ranges else None,
    }


def _common_preprocess(artifacts: Sequence[Artifact]) -> Preprocess:
    """The members' preprocessing without the normalisation; ConfigError where it is not one."""
    names = [one.model.card.name for one in artifacts]
    together = [
        name for name, one in zip(names, artifacts, strict=True) if isinstance(one.model, BatchModel | Ensemble)
    ]
    if together:
        raise ConfigError(
            f"{together[0]} cannot be a member: it gives no score of one image alone, or is an ensemble itself"
        )
    plain = [replace(one.preprocess, mean=None, std=None) for one in artifacts]
    for name, view in zip(names, plain, strict=True):
        if view != plain[0]:
            raise ConfigError(
                f"{names[0]} and {name} do not see an image alike (size, crop, resize, channels, value range): "
                f"{plain[0].to_dict()} and {view.to_dict()}; train them with the same image_size"
            )
    return plain[0]


def _normalised(images: Tensor, member: Member) -> Tensor:
    if member.mean is None or member.std is None:
        return images
    mean, std = (images.new_tensor(v)[:, None, None] for v in (member.mean, member.std))
    return (images - mean) / std


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    """Lists of a stored configuration as tuples, as settings have them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
