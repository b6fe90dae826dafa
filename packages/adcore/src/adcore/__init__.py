"""adcore: industrial visual anomaly detection. Importing it never imports torch; names load on first use."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "train": "adcore.api",
    "train_models": "adcore.api",
    "evaluate": "adcore.api",
    "load": "adcore.inference.predictor",
    "create_model": "adcore.registry",
    "list_models": "adcore.registry",
    "model_card": "adcore.registry",
    "register": "adcore.registry",
    "set_globals": "adcore.settings",
    "AdcoreError": "adcore.errors",
    "AnomalyModel": "adcore.model",
    "Batch": "adcore.model",
    "Fit": "adcore.model",
    "Optimization": "adcore.model",
    "Prediction": "adcore.model",
    "Update": "adcore.model",
    "ModelCard": "adcore.cards",
    "DatasetCard": "adcore.cards",
    "BackboneCard": "adcore.cards",
    "MetricCard": "adcore.cards",
    "ExecutorCard": "adcore.cards",
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
