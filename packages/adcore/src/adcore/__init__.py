"""adcore: industrial visual anomaly detection. Importing it never imports torch; names load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # for type checkers and editors: the same names
    from adcore.api import evaluate, train, train_models
    from adcore.cards import (
        BackboneCard,
        DatasetCard,
        ExecutorCard,
        ExporterCard,
        MetricCard,
        ModelCard,
    )
    from adcore.errors import AdcoreError
    from adcore.export.run import export_model
    from adcore.hookspecs import hookimpl
    from adcore.inference.predictor import load
    from adcore.model import (
        AnomalyModel,
        Batch,
        BatchModel,
        Fit,
        Optimization,
        Prediction,
        Update,
    )
    from adcore.registry import (
        create_model,
        list_models,
        model_card,
        register,
    )
    from adcore.settings import set_globals

_LAZY = {
    "train": "adcore.api",
    "train_models": "adcore.api",
    "evaluate": "adcore.api",
    "export_model": "adcore.export.run",
    "load": "adcore.inference.predictor",
    "create_model": "adcore.registry",
    "list_models": "adcore.registry",
    "model_card": "adcore.registry",
    "register": "adcore.registry",
    "set_globals": "adcore.settings",
    "AdcoreError": "adcore.errors",
    "AnomalyModel": "adcore.model",
    "Batch": "adcore.model",
    "BatchModel": "adcore.model",
    "Fit": "adcore.model",
    "Optimization": "adcore.model",
    "Prediction": "adcore.model",
    "Update": "adcore.model",
    "ModelCard": "adcore.cards",
    "DatasetCard": "adcore.cards",
    "BackboneCard": "adcore.cards",
    "MetricCard": "adcore.cards",
    "ExecutorCard": "adcore.cards",
    "ExporterCard": "adcore.cards",
    "hookimpl": "adcore.hookspecs",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'adcore' has no attribute '{name}'")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
