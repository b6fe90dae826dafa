"""The header of a model file as a schema: a header that does not fit is refused before a model is built."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcore.errors import AdcoreError, ArtifactError
from adcore.preprocess import Preprocess

FORMAT = 3  # 2 had its checksum tensor by tensor, 1 had none

Name = Annotated[str, Field(min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """Types are not converted, unknown keys are refused, numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class StoredThreshold(_Part):
    """`adcore.evaluation.thresholds.Threshold`."""

    value: float
    method: str
    source: str = ""
    note: str = ""
    normal_images: int | None = None
    false_alarm_rate: float | None = None
    interval: tuple[float, float] | None = None


class StoredCalibration(_Part):
    """What `adcore.evaluation.evaluate.calibrate` gives: all of it, or nothing where there was nothing to calibrate on."""

    threshold: StoredThreshold | None = None
    score_range: tuple[float, float] | None = None  # lowest, highest
    map_range: tuple[float, float] | None = None  # median, highest value of the normal images' maps
    review_band: tuple[float, float] | None = None  # raw scores: good below, bad from its end on
    categories: dict[str, StoredThreshold] = {}  # thresholds of single categories
    statistics: dict[str, list[float]] = {}  # of the normal images: sorted values of each


class StoredBackbone(_Part):
    """A frozen backbone: its weights are inside, or the file with this sha256 has to be present."""

    prefix: str  # of its tensors' names
    backbone: Name
    source: str  # file name, or "random"
    sha256: Digest | None
    inside: bool


class Header(_Part):
    """All of a model file but the tensors."""

    format: int
    model: Name
    package: Name
    package_version: str
    config: dict[str, Any]  # checked by the model's own annotations when it is built
    preprocess: Preprocess
    calibration: StoredCalibration
    training: dict[str, Any]
    backbones: list[StoredBackbone]
    versions: dict[str, str]
    sha256: Digest


def check_header(record: dict[str, Any], name: str) -> None:
    """Raise ArtifactError, which begins with `name`, unless `record` is a header of the format that this adcore reads."""
    version, versions = record.get("format"), record.get("versions")
    made_by = versions.get("adcore", "?") if isinstance(versions, dict) else "?"
    if isinstance(version, int) and version > FORMAT:
        raise ArtifactError(
            f"{name} has format {version} (made by adcore {made_by}), this adcore reads format {FORMAT}; upgrade adcore"
        )
    if version == 1:
        raise ArtifactError(
            f"{name} has format 1, of adcore before its first release, without a checksum; train the model again"
        )
    try:
        header = Header.model_validate_json(json.dumps(record))
        json.dumps(record, allow_nan=False)  # also in what the schema leaves free
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{name} has a damaged header: {key}: {first['msg']}; copy or train it again") from None
    except (AdcoreError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} has a damaged header: {error}; copy or train it again") from None
    _check_calibration(header.calibration, name)
    for stored in header.backbones:
        if not stored.inside and stored.sha256 is None:
            raise ArtifactError(
                f"{name} has a damaged header: no sha256 for backbone '{stored.backbone}'; train it again"
            )


def _check_calibration(calibration: StoredCalibration, name: str) -> None:
    ranges = [pair for pair in (calibration.score_range, calibration.map_range, calibration.review_band) if pair]
    if (calibration.threshold is None) != (calibration.score_range is None) or any(low > high for low, high in ranges):
        raise ArtifactError(f"{name} has a damaged header: its calibration is incomplete; copy or train it again")
