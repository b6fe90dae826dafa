"""Several trained models as one: their scores made comparable on normal images, and combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from adcore.artifact import Artifact
from adcore.backbones.shared import SharedRun, remembering, share
from adcore.cards import ModelCard
from adcore.data.roi import rois_for
from adcore.data.samples import NORMAL, DatasetReader, Sample
from adcore.errors import ConfigError, DataError
from adcore.evaluation import evaluate as evaluation
from adcore.evaluation.metrics import image_metrics
from adcore.evaluation.score import Scoring, score_samples
from adcore.model import AnomalyModel, BatchModel, Prediction
from adcore.preprocess import EACH, Preprocess
from adcore.recalibration import calibration_images
from adcore.registry import create_model, register
from adcore.request import DataChoice
from adcore.training.device import pick_device

NAME, KNOTS = "ensemble", 101  # points of the stored distribution of a member's normal scores
STEPS = 50  # most steps when weights are chosen
Combine = Literal["mean", "max"]
Weights = Sequence[float] | Literal["chosen"]
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


@dataclass(frozen=True)
class Calibration:
    """The images that make scores comparable and choose the threshold: `samples` of one split of `data`."""

    data: DataChoice
    reader: DatasetReader
    samples: Sequence[Sample]
    split: str


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

    cannot_add = "update each of its models, and make the ensemble of them again"

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
        with remembering(self.shared):
            predictions = [part(views[one.mean, one.std]) for one, part in zip(self.members, self.parts, strict=True)]
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
    combine: Combine = "mean",
    weights: Weights = (),
    device: str = "auto",
) -> tuple[Artifact, Scoring]:
    """The trained models as one artifact, calibrated on the images of `data`, and its scores of them.

    `split` as for `recalibrated`, the rest as for `combined`.
    """
    rois_for(_common_preprocess(artifacts), data.roi)  # refuses one that the models do not take
    images = Calibration(data, *calibration_images(data, method, split))
    return combined(artifacts, images, method, combine, weights, device)


def combined(
    artifacts: Sequence[Artifact],
    images: Calibration,
    method: str,
    combine: Combine = "mean",
    weights: Weights = (),
    device: str = "auto",
) -> tuple[Artifact, Scoring]:
    """The trained models as one artifact, calibrated on `images`, and its scores of them.

    The normal images there make the members' scores comparable; `method` chooses the threshold on all of them, and with
    `weights="chosen"` they choose the weights of the mean. Raises ConfigError for models that do not see images alike,
    DataError for too few normal images, or for none to choose weights on.
    """
    register(CARD)
    preprocess = _common_preprocess(artifacts)
    data, reader = images.data, images.reader
    normal = [sample for sample in images.samples if sample.label == NORMAL]
    if preprocess.roi == EACH:
        reader.rois = rois_for(preprocess, data.roi)
    if len(normal) < 2:
        raise DataError(f"{data.root} has {len(normal)} normal image there; scores are made comparable on two or more")
    choosing = weights == "chosen"
    if choosing and (combine == "max" or len(normal) == len(images.samples)):
        raise ConfigError("weights are chosen for the mean, on normal and anomalous images; give numbers, or none")
    chosen_device, members, found = pick_device(device), [], []
    for one in artifacts:
        one.model.to(chosen_device)
        samples = images.samples if choosing else normal
        found.append(score_samples(one.model, one.preprocess, reader, samples, chosen_device, data.skip_bad))
        members.append(_member(one, found[-1]))
    shares = chosen_weights(members, found) if choosing else tuple(weights)
    model = create_model(NAME, members=tuple(members), combine=combine, weights=shares)
    for place, one in enumerate(artifacts):
        model.parts[place] = one.model
    model.fitted = True
    model.to(chosen_device).eval()
    scoring = score_samples(model, preprocess, reader, images.samples, chosen_device, data.skip_bad, statistics=True)
    calibration = evaluation.calibrate(scoring, method, images.split)
    training = {
        "dataset": data.dataset,
        "category": data.category,
        "members": [one.model.card.name for one in artifacts],
    }
    return Artifact(model, preprocess, calibration, training), scoring


def chosen_weights(members: Sequence[dict[str, Any]], found: Sequence[Scoring]) -> tuple[float, ...]:
    """The weights with the highest image AUROC of the mean of the comparable scores, by hill climbing.

    All begin with a weight of 1; as long as the AUROC rises, the weight whose step by 1 raises it most makes that step.
    """
    places = np.stack(
        [
            comparable(torch.tensor(one.scores), torch.tensor(member["scores"], dtype=torch.float32)).numpy()
            for member, one in zip(members, found, strict=True)
        ],
        axis=1,
    )  # (N, members)
    weights = np.ones(len(members))
    best = _auroc(places @ weights, found[0])
    for _ in range(STEPS):
        steps = [weights + sign * step for step in np.eye(len(members)) for sign in (1, -1)]
        values = [_auroc(places @ tried, found[0]) if min(tried) >= 0 and tried.any() else 0.0 for tried in steps]
        if max(values) <= best:
            break
        best, weights = max(values), steps[int(np.argmax(values))]
    return tuple(weights.tolist())


def _auroc(scores: np.ndarray, scoring: Scoring) -> float:
    return image_metrics(scores, scoring.labels)["image_auroc"]


def _member(artifact: Artifact, scoring: Scoring) -> dict[str, Any]:
    """The stored form of a model and its scores of normal images, which are those that count of `scoring`."""
    scoring = Scoring([image for image in scoring.images if image.sample.label == NORMAL])
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
                f"{names[0]} and {name} do not see an image alike (size, crop, resize, channels, value range, regions): "
                f"{_told(plain[0])} and {_told(view)}; train them with the same image_size"
            )
    return plain[0]


def _told(view: Preprocess) -> dict[str, Any]:
    """Without the bits of a region of interest."""
    return {**view.to_dict(), "roi": view.roi and str(view.roi)[:60]}


def _normalised(images: Tensor, member: Member) -> Tensor:
    if member.mean is None or member.std is None:
        return images
    mean, std = (images.new_tensor(v)[:, None, None] for v in (member.mean, member.std))
    return (images - mean) / std


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    """Lists of a stored configuration as tuples, as settings have them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
