"""The plan of a fit: everything about training that is not the model's own configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator

from adcore.config import CheckedModel, describe_errors, unknown_key_message
from adcore.errors import ConfigError

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from adcore.cards import ModelCard
    from adcore.model import Optimization


MAX_STEPS = 10**9  # far beyond any fit; larger numbers are mistakes
MAX_BATCH = 2**16
MAX_SEED = 2**32 - 1  # as in adcore.settings: what torch, NumPy and scikit-learn all take
WATCHING = ("monitor", "patience", "min_delta", "target", "validate_every", "validate_every_steps")
OPTIMIZING = ("learning_rate", "weight_decay", "optimizer", "scheduler", "clip_norm", "accumulate")
NETWORKS = ("precision", "channels_last", "compile")
# Settings that one-pass models do not use: they see each image once and have no optimizer.
UNUSED_IN_ONE_PASS = ("epochs", *OPTIMIZING, *NETWORKS, *WATCHING)


class Plan(CheckedModel):
    """How long, in what batches and with which optimizer a model is fitted; checked, and plain data."""

    epochs: int = Field(1, ge=1, le=MAX_STEPS)
    batch_size: int = Field(8, ge=1, le=MAX_BATCH)
    max_steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="stop after so many batches")
    seed: int = Field(42, ge=0, le=MAX_SEED)
    num_workers: int = Field(0, ge=0, le=1024, description="processes that read images")
    learning_rate: float | None = Field(None, gt=0, description="instead of the model's own")
    weight_decay: float | None = Field(None, ge=0, description="instead of the model's own")
    optimizer: str | dict[str, Any] | None = Field(
        None, description='instead of the model\'s own: adamw, or {"type": "sgd", "momentum": 0.9}'
    )
    scheduler: dict[str, Any] | None = Field(
        None, description='such as {"type": "steplr", "step_size": 10, "gamma": 0.8}'
    )
    clip_norm: float | None = Field(None, gt=0, description="largest total gradient norm")
    accumulate: int = Field(
        1, ge=1, le=MAX_STEPS, description="batches whose gradients are added up for one optimizer step"
    )
    precision: Literal["float32", "mixed"] = Field(
        "float32", description="mixed: autocast, on CUDA or a CPU with bfloat16"
    )
    channels_last: bool = Field(
        False, description="images and weights of convolutions with their channels last in memory"
    )
    compile: bool = Field(False, description="train with networks that torch.compile has compiled")
    monitor: Literal["val_loss", "val_image_auroc"] | None = Field(None, description="what validation looks at")
    validate_every: int = Field(1, ge=1, description="epochs between two validations")
    validate_every_steps: int | None = Field(None, ge=1, description="steps between two validations, instead of epochs")
    patience: int | None = Field(None, ge=1, description="validations without improvement before an early stop")
    min_delta: float = Field(0.0, ge=0, description="smallest change of the monitored value that counts")
    target: float | None = Field(None, description="stop once the monitored value is this good")
    cache: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="where preprocessed images stay after the first pass; auto: memory, else disk, where there is room",
    )
    checkpoint_seconds: float = Field(30.0, ge=0, description="seconds between two checkpoints; 0: after every step")
    monitor_gradients: bool = Field(False, description="log grad/total_norm and grad/nan_count")
    steps_per_epoch: int | None = Field(None, description="set by the trainer, before the optimizers are configured")

    @field_validator("monitor", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value  # val_image_AUROC

    @property
    def total_steps(self) -> int:
        """Batches that the whole fit will see; ConfigError before the trainer has set `steps_per_epoch`."""
        if self.steps_per_epoch is None:
            raise ConfigError("plan.total_steps is known only once the trainer has seen the training set")
        steps = self.epochs * self.steps_per_epoch
        return min(steps, self.max_steps) if self.max_steps else steps

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps of the whole fit, with one for each `accumulate` batches and for what is left of an epoch.

        For schedulers with interval "step". Models that skip batches, or yield several Updates a batch, take other numbers.
        """
        epochs, rest = divmod(self.total_steps, self.steps_per_epoch)
        return epochs * -(-self.steps_per_epoch // self.accumulate) + -(-rest // self.accumulate)

    def with_seed(self, seed: int) -> Plan:
        """The same plan with another seed; ConfigError where it is out of range."""
        return _checked(Plan, {**self.model_dump(), "seed": seed})

    @classmethod
    def for_card(cls, card: ModelCard, **overrides: Any) -> Plan:
        """The card's epochs and batch size with the user's overrides; ConfigError for a wrong key or value."""
        unknown = [key for key in overrides if key not in cls.model_fields]
        if unknown:
            raise ConfigError(unknown_key_message("training", unknown, sorted(cls.model_fields)))
        given = {key: value for key, value in overrides.items() if value is not None}
        plan = _checked(cls, {"epochs": card.epochs, "batch_size": card.batch_size, **given})
        if plan.max_steps and "epochs" not in given:  # as many as the steps need
            plan = plan.model_copy(update={"epochs": max(card.epochs, plan.max_steps)})
        plan.check_optimization()
        return plan

    def watching(self, images: bool, both_kinds: bool) -> Plan:
        """The plan with its `monitor`, for a run that has validation `images`, and normal and anomalous ones or not.

        A patience alone watches the image AUROC where both kinds are there, else the loss. A target alone is an AUROC.
        Raises ConfigError for a plan that these images do not allow.
        """
        if self.monitor is None and self.patience is None and self.target is None:
            return self
        wanted = next(key for key in ("monitor", "patience", "target") if getattr(self, key) is not None)
        if not images:
            raise ConfigError(
                f"{wanted} needs validation images; set --val-split (val_split_mode) to from_train or from_test"
            )
        monitor = self.monitor or ("val_image_auroc" if both_kinds or self.target is not None else "val_loss")
        if monitor == "val_image_auroc" and not both_kinds:
            raise ConfigError(
                f"{wanted} needs normal and anomalous validation images; set --val-split (val_split_mode) to from_test, "
                "or monitor to val_loss"
            )
        return self.model_copy(update={"monitor": monitor})

    def in_one_pass(self) -> Plan:
        """The plan of a model that learns in one pass: what such a model does not use is at its default."""
        return self.model_copy(update={key: type(self).model_fields[key].default for key in UNUSED_IN_ONE_PASS})

    def check_optimization(self) -> None:
        """Build the user's optimizer and scheduler once, for a parameter of no model; ConfigError where one is wrong."""
        if self.optimizer or self.scheduler:
            import torch

            self.optimization([torch.nn.Parameter(torch.zeros(1))], learning_rate=1e-3)

    def _optimizer(self) -> dict[str, Any] | None:
        """The user's optimizer as {"type": name, option: value}; ConfigError for another form."""
        if self.optimizer is None or isinstance(self.optimizer, str):
            return {"type": self.optimizer} if self.optimizer else None
        if not isinstance(self.optimizer.get("type"), str):
            raise ConfigError(f'optimizer: expected a name, or {{"type": name, option: value}}, got {self.optimizer!r}')
        return dict(self.optimizer)

    def optimization(
        self,
        parameters: Iterable[Any],
        optimizer: str | type[Optimizer] = "adam",
        *,
        learning_rate: float,
        scheduler: dict[str, Any] | None = None,
        clip_norm: float | None = None,
        **options: Any,
    ) -> Optimization:
        """The model's own choice of optimizer, schedule and clipping, with this plan's overrides applied.

        `optimizer` is a name, or a class where the method brings its own.
        `options` go to the optimizer (weight_decay, momentum, betas, ...); they are dropped when the user chose another
        optimizer, but for weight_decay. `scheduler` is a configuration such as {"type": "cosine", "T_max": 30}.
        """
        from adcore.model import Optimization
        from adcore.training.schedules import build_optimizer, build_scheduler

        asked, own = self._optimizer(), optimizer.lower() if isinstance(optimizer, str) else None
        name = asked.pop("type") if asked else optimizer
        if asked is not None and name.lower() != own:
            options = {key: value for key, value in options.items() if key == "weight_decay"}
        options |= asked or {}
        if self.weight_decay is not None:
            options["weight_decay"] = self.weight_decay
        built = build_optimizer(name, parameters, lr=self.learning_rate or learning_rate, **options)
        schedule, interval = build_scheduler(built, self.scheduler or scheduler)
        return Optimization(built, schedule, interval, self.clip_norm or clip_norm)


def _checked(kind: type[Plan], values: dict[str, Any]) -> Plan:
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(f"training: {describe_errors(error)}") from None
