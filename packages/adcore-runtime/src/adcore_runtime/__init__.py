"""adcore-runtime: runs exported models where images are made, without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from adcore_runtime.decisions import Result
    from adcore_runtime.predictor import Predictor, load

_LAZY = {
    "load": "adcore_runtime.predictor",
    "Predictor": "adcore_runtime.predictor",
    "Result": "adcore_runtime.decisions",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'adcore_runtime' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
