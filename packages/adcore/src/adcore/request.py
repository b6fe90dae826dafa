"""The request for a run: model, data and settings, checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adcore.cards import ModelCard
from adcore.config import checked_config, config_fields, unknown_key_message
from adcore.data.splits import SplitMode, fold_count
from adcore.errors import ConfigError
from adcore.files import portable_path
from adcore.model import AnomalyModel
from adcore.preprocess import IMAGENET_MEAN, IMAGENET_STD, RESIZE_METHODS, Preprocess
from adcore.registry import backbone_card, check_data_options, model_card, model_class, open_dataset
from adcore.settings import settings
from adcore.spellings import translate
from adcore.training.plan import UNUSED_IN_ONE_PASS, Plan

ALL = "all"  # as the category of a DataChoice: all of them together
VAL_RATIO = 0.2  # part of the images that a validation split takes
MAX_SIDE = 2**14  # pixels
TILE_OVERLAP = 0.125  # part of a tile that it shares with its neighbour
PREPROCESS_KEYS = (
    "image_size",
    "crop_size",
    "normalization",
    "resize",
    "channels",
    "value_range",
    "region",
    "tile",
    "tile_overlap",
)
PLAN_KEYS = tuple(key for key in Plan.model_fields if key != "steps_per_epoch")


@dataclass(frozen=True)
class DataChoice:
    """Where the images of a run come from."""

    dataset: str  # name of a layout
    root: Path
    category: str
    options: dict[str, Any] = field(default_factory=dict)  # of the reader
    val_split: SplitMode = "none"
    val_ratio: float = VAL_RATIO
    skip_bad: bool = False
    shots: int | None = None  # normal images of each category that train, drawn by the seed; None: all
    calibration: str | None = None  # "cv:5": the threshold is chosen on training images, by cross-validation
    roi: Path | None = None  # a region of interest of all images, or one for each (see adcore.data.roi)

    @property
    def folds(self) -> int | None:
        """Of the cross-validation that the threshold is chosen by; ConfigError for another text of `calibration`."""
        return None if self.calibration is None else fold_count(self.calibration)


@dataclass(frozen=True)
class ModelChoice:
    """A model card with everything the user changed, checked."""

    card: ModelCard
    config: dict[str, Any]
    plan: Plan
    preprocess: Preprocess
    notes: tuple[str, ...] = ()  # settings that this model does not use


def validation_split(mode: SplitMode | None, ratio: float | None) -> dict[str, Any]:
    """`val_split` and `val_ratio` of a DataChoice: a ratio alone takes validation images from the training images."""
    default = "none" if ratio is None else "from_train"
    return {"val_split": mode or default, "val_ratio": VAL_RATIO if ratio is None else ratio}


def parse_data(spec: str) -> tuple[str, Path]:
    """ "NAME:ROOT", or "NAME" below the configured dataset_dir, to (name, root)."""
    name, colon, root = spec.partition(":")
    if len(name) == 1 and root.startswith(("\\", "/")):
        raise ConfigError(
            f"--data {spec}: {name}: is a drive; write the layout before the folder, as in --data mvtec:{spec}"
        )
    if colon and root:
        return name, portable_path(root).expanduser()
    folder = settings().dataset_dir
    if folder is None:
        raise ConfigError(f"--data {spec}: give the folder, as in --data {name}:PATH, or set ADCORE_DATASET_DIR")
    return name, folder / name if (folder / name).is_dir() else folder


def choose_categories(
    name: str,
    root: Path,
    category: str | Sequence[str],
    options: dict[str, Any],
    pooled: bool = False,
    needs_training: bool = True,
) -> list[str]:
    """The categories of the runs: one for each that is named, of "all" for each of the dataset; `pooled`: one over all.

    `needs_training`: False where a dataset without training images will do.
    """
    if pooled:
        if category not in (None, ALL):
            raise ConfigError("pooled trains on all categories together; leave the category out")
        return [ALL]
    reader = open_dataset(name, str(root), **check_data_options(name, options))
    reader.needs_training = needs_training
    if category == ALL:
        return reader.categories()
    return [category] if isinstance(category, str) else list(category)


def choose_model(name: str, overrides: dict[str, Any]) -> ModelChoice:
    """Sort `overrides` into model, plan and preprocessing settings; ConfigError lists the valid keys.

    Names that other frameworks use are understood (see `adcore.spellings`).
    """
    card = model_card(name)
    kind = model_class(card)
    fields = config_fields(kind)
    overrides = translate(card, (*PLAN_KEYS, *PREPROCESS_KEYS, *fields), overrides)
    unknown = [key for key in overrides if key not in (*PLAN_KEYS, *PREPROCESS_KEYS, *fields)]
    if unknown:
        raise ConfigError(unknown_key_message(card.name, unknown, sorted({*fields, *PLAN_KEYS, *PREPROCESS_KEYS})))
    config = checked_config(card, kind, {k: v for k, v in overrides.items() if k in fields})
    plan_overrides = {k: v for k, v in overrides.items() if k in PLAN_KEYS and k not in fields}
    plan = Plan.for_card(
        card,
        **{"seed": settings().seed, "num_workers": settings().num_workers, "cache": settings().cache, **plan_overrides},
    )
    given = {key: value for key, value in plan_overrides.items() if key in UNUSED_IN_ONE_PASS}
    unused = [key for key, value in given.items() if value not in (None, Plan.model_fields[key].default)]
    notes = ()
    if kind.configure_optimizers is AnomalyModel.configure_optimizers:
        plan = plan.in_one_pass()
        how = "learns nothing" if card.training == "none" else "learns in one pass"
        notes = (f"{card.name} {how} and does not use {', '.join(unused)}",) if unused else ()
    chosen = {key: overrides[key] for key in PREPROCESS_KEYS if key in overrides}
    preprocess = make_preprocess(card, config, **chosen)
    if all(config.get(key) == value for key, value in card.config.items()):  # another backbone may need other sizes
        _check_multiple(card, preprocess)
    return ModelChoice(card, config, plan, preprocess, notes)


def _check_multiple(card: ModelCard, preprocess: Preprocess) -> None:
    size, multiple = preprocess.output_size, card.size_multiple
    if any(side % multiple for side in size):
        below = [max(side // multiple, 1) * multiple for side in size]
        above = [-(-side // multiple) * multiple for side in size]
        near = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in (below, above)))
        key = "tile" if preprocess.tile else "crop_size" if preprocess.crop else "image_size"
        raise ConfigError(
            f"{key}: {card.name} takes images whose sides are multiples of {multiple}, not {size[0]}x{size[1]}; "
            f"nearest: {near}"
        )


def make_preprocess(
    card: ModelCard,
    config: dict[str, Any],
    image_size: Any = None,
    crop_size: Any = None,
    normalization: str | None = None,
    resize: str = "bilinear",
    channels: Any = 3,
    value_range: Any = None,
    region: Any = None,
    tile: Any = None,
    tile_overlap: Any = None,
) -> Preprocess:
    """The card's preprocessing with the user's changes; the mean and std follow the backbone that is in use.

    With a tile and without image_size images keep their size.
    """
    normalization = normalization or card.normalization
    if normalization == "none":
        mean = std = None
    elif normalization == "imagenet":
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    elif normalization == "backbone":
        name = config.get("backbone") or next(iter(card.required_backbones), None)
        if name is None:
            raise ConfigError(f"{card.name} has no backbone to normalise for; normalization is imagenet or none")
        backbone = backbone_card(name)
        mean, std = backbone.mean, backbone.std
    else:
        raise ConfigError(f"unknown normalization '{normalization}'; valid ones: backbone, imagenet, none")
    resize = str(resize).replace("_", "-")
    if resize not in RESIZE_METHODS:
        raise ConfigError(f"unknown resize '{resize}'; valid ones: {', '.join(RESIZE_METHODS)}")
    if image_size is not None and crop_size is None:
        crop_size = "none"  # the card's crop belongs to the card's size
    if tile and image_size is None and resize != "bilinear":
        raise ConfigError(f"resize={resize}: images in tiles keep their size unless image_size says another")
    tile = None if tile in (None, "none") else _size(tile, "tile")
    if tile and card.no_tiles:
        raise ConfigError(f"tile: {card.name} cannot see an image in tiles: {card.no_tiles}")
    if tile_overlap is not None and not tile:
        raise ConfigError("tile_overlap goes with a tile; set tile as well, such as tile=512")
    size = image_size if image_size is not None or tile else card.image_size
    if tile and image_size is None and crop_size is None:
        crop_size = "none"  # it belongs to the card's size
    crop = card.crop_size if crop_size is None else (None if crop_size == "none" else crop_size)
    return Preprocess(
        size=_size(size, "image_size") if size is not None else None,
        crop=_size(crop, "crop_size") if crop is not None else None,
        mean=mean,
        std=std,
        resize=resize,
        channels=_channels(card, config, channels),
        value_range=_value_range(value_range),
        region=_region(region),
        tile=tile,
        tile_overlap=_overlap(tile_overlap, tile) if tile else (0, 0),
    )


def _channels(card: ModelCard, config: dict[str, Any], channels: Any) -> int:
    """The channels of the model's input; only a model with a setting `channels` takes others than three."""
    if "channels" in config:
        return config["channels"]
    if channels != 3:
        raise ConfigError(f"channels: {card.name} takes images of 3 channels (gray is repeated), not {channels!r}")
    return 3


def _value_range(value: Any) -> tuple[float, float] | None:
    """[0, 0.05], ["0", "0.05"] or None -> (0.0, 0.05) or None."""
    if value in (None, "none"):
        return None
    try:
        low, high = (float(part) for part in value)
    except (TypeError, ValueError):
        raise ConfigError(f"value_range: give the lowest and highest value, such as 0,0.05 (got {value!r})") from None
    return low, high


def _region(value: Any) -> tuple[int, int, int, int] | None:
    """[10, 20, 300, 200], "10,20,300,200" or None -> (x, y, width, height) or None."""
    if value in (None, "none"):
        return None
    try:
        x, y, width, height = map(_whole, value.split(",") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"region: give x,y,width,height in pixels of the original images, such as 100,50,800,600 (got {value!r})"
        ) from None
    if min(x, y) < 0 or min(width, height) < 1 or max(x, y, width, height) > MAX_SIDE:
        raise ConfigError(
            f"region: x and y must be from 0 on, width and height from 1 to {MAX_SIDE} pixels (got {value!r})"
        )
    return x, y, width, height


def _overlap(value: Any, tile: tuple[int, int]) -> tuple[int, int]:
    """64 pixels, 0.25 of the tile, or None for an eighth of it -> rows and columns."""
    try:
        number = TILE_OVERLAP if value is None else float(value)
        if isinstance(value, bool) or not 0 <= number < min(tile) or (number >= 1 and number != int(number)):
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(
            f"tile_overlap: give pixels below the tile's side, such as 64, or a part of it, such as 0.25 (got {value!r})"
        ) from None
    return tuple(int(number if number >= 1 else number * side) for side in tile)


def _size(value: Any, key: str) -> tuple[int, int]:
    """256, "256x320", [256, 320] -> (height, width)."""
    parts = value.lower().split("x") if isinstance(value, str) else value
    try:
        sides = [_whole(part) for part in parts] if isinstance(parts, list | tuple) else [_whole(parts)] * 2
        if len(sides) == 1:
            sides *= 2
        height, width = sides
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key}: give one side or HEIGHTxWIDTH, such as 256 or 256x320 (got {value!r})") from None
    if min(height, width) < 1 or max(height, width) > MAX_SIDE:
        raise ConfigError(f"{key}: sides must be from 1 to {MAX_SIDE} pixels (got {value!r})")
    return height, width


def _whole(value: Any) -> int:
    """ValueError for true, false and 256.5."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)
