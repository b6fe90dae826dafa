"""timm's networks, of which a process imports those that it builds.

`import timm` reads all of its hundred architectures, its data loaders, torchvision and the client of a model hub: 0.3 s and
40 MB of each start. Here `timm`, `timm.models` and `timm.data` are packages whose submodules import as ever, and whose own
files run as soon as anything is asked of them that is not there; so other code that uses timm finds all of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

from torch import nn

from adcore.lean import lean_imports

_lock = RLock()


class _Package(ModuleType):
    """A package whose own file runs when it is asked for what it does not have yet."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__package__ = spec, spec.loader, spec.name
        self.__path__, self.__file__ = spec.submodule_search_locations, spec.origin
        self._runs = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        with _lock:  # another thread may be running it
            if type(self) is _Package and not self._runs:
                self._runs = True
                try:
                    with lean_imports():
                        self.__loader__.exec_module(self)
                    self.__class__ = ModuleType
                finally:  # what failed says so again, to whoever asks next
                    self._runs = False
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")


def _package(name: str) -> _Package:
    package = sys.modules[name] = _Package(find_spec(name))
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)
    return package


def _later(module: str, name: str, first: Callable[[], None] = lambda: None) -> Callable:
    """A function that is looked up when it is called."""

    def call(*arguments: Any, **options: Any) -> Any:
        first()
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    return call


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Those of these modules that are not imported yet are not afterwards either, nor what is below them."""
    absent = {name for name in names if name not in sys.modules}
    try:
        yield
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] in absent]:
            del sys.modules[module]


def _without_torchvision() -> None:
    """timm needs a class of torchvision, and two functions only when networks are traced."""
    if "torchvision" not in sys.modules:
        for name in ("torchvision", "torchvision.models", "torchvision.ops"):
            _package(name)
        tracing = sys.modules["torchvision.models.feature_extraction"] = ModuleType("feature_extraction")
        for name in ("create_feature_extractor", "get_graph_node_names"):
            setattr(tracing, name, _later("torchvision.models.feature_extraction", name))


def _without_hub() -> None:
    """timm names the client's functions and errors; nothing here calls them."""
    if "huggingface_hub" not in sys.modules:
        hub, utils = (
            sys.modules.setdefault(name, ModuleType(name)) for name in ("huggingface_hub", "huggingface_hub.utils")
        )
        for name in ("HfApi", "hf_hub_download", "model_info"):
            setattr(hub, name, _later("huggingface_hub", name, _connect))
        for name in ("EntryNotFoundError", "RepositoryNotFoundError"):
            setattr(utils, name, type(name, (Exception,), {}))


def _connect() -> None:
    """Before its client is used, timm learns the errors that it raises."""
    from huggingface_hub.utils import EntryNotFoundError, RepositoryNotFoundError

    hub = sys.modules["timm.models._hub"]
    hub.EntryNotFoundError, hub.RepositoryNotFoundError = EntryNotFoundError, RepositoryNotFoundError


def _import_lean() -> None:
    for name in ("timm", "timm.models", "timm.data"):
        _package(name)
    with lean_imports(), _absent("torchvision", "huggingface_hub"):
        _without_torchvision()
        _without_hub()
        sys.modules["timm"].__version__ = importlib.import_module("timm.version").__version__
        constants = vars(importlib.import_module("timm.data.constants"))
        vars(sys.modules["timm.data"]).update({name: value for name, value in constants.items() if name.isupper()})
        importlib.import_module("timm.models._factory")


if "timm" not in sys.modules:
    try:
        _import_lean()
    except (ImportError, AttributeError):  # a timm of another shape: then all of it
        for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
            del sys.modules[name]
        with lean_imports():
            import timm  # noqa: F401

layers: ModuleType = importlib.import_module("timm.layers")


def create_network(architecture: str, **options: Any) -> nn.Module:
    """`timm.create_model` without pretrained weights, which imports the one file that defines the architecture."""
    factory = importlib.import_module("timm.models._factory")
    if not factory.is_model(architecture):
        _import_definition(architecture.partition(".")[0])
    complete = not factory.is_model(architecture)  # an alias, say, that all of timm knows
    return (sys.modules["timm"] if complete else factory).create_model(architecture, pretrained=False, **options)


def _import_definition(name: str) -> None:
    for path in sorted(Path(sys.modules["timm.models"].__path__[0]).glob("[!_]*.py")):
        if f"\ndef {name}(".encode() in path.read_bytes():
            importlib.import_module(f"timm.models.{path.stem}")
