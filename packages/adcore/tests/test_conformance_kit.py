"""Every check of the kit catches the fault it is there for; a right model passes all of them.

The toy models are really installed: a distribution in a folder on the path, found through its entry point.
"""

from __future__ import annotations

import os
import sys

import pytest
import torch
from adcore import plugins
from adcore.errors import ConfigError
from adcore.export.graph import require_onnx
from adcore.testing import ModelConformance, base
from adcore.testing.checks import check_models, check_names, explain
from adcore.testing.site import write_distribution


def exports() -> bool:
    """Whether models can be exported here."""
    try:
        require_onnx()
    except ConfigError:
        return False
    return True


NEEDS = {  # what a check is skipped without, and whether it is here
    "test_exports": ('pip install "adcore[export]"', exports()),
    "test_on_gpu": ("torch sees no GPU", torch.cuda.is_available()),
}

RIGHT = '''
"""A right toy, and subclasses with one fault each."""
import os, socket
from typing import Annotated, Any
import torch
from pydantic import Field
from adcore.maps import highest, upsample
from adcore.model import AnomalyModel, Prediction, Update

class Right(AnomalyModel):
    def __init__(self, gain: Annotated[float, Field(gt=0, description="of the map")] = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.mean = torch.nn.Parameter(torch.rand(3))

    def distance(self, images):
        return (images - self.mean[:, None, None]).square().mean(1)

    def training_step(self, batch, step):
        yield Update(self.distance(batch.images).mean())

    def configure_optimizers(self, plan):
        return {"main": plan.optimization(self.parameters(), "sgd", learning_rate=0.1)}

    def forward(self, images):
        small = torch.nn.functional.avg_pool2d(self.distance(images)[:, None], 4)[:, 0]
        anomaly_map = self.gain * upsample(small, images.shape[-2:])
        return Prediction(highest(anomaly_map, self.roi_mask), anomaly_map)

class Counted(Right):
    fits = 0

    def on_fit_start(self, fit):
        Counted.fits += 1

class OnePass(AnomalyModel):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.empty(0))

    def on_fit_start(self, fit):
        self.bank = torch.empty(0)

    def training_step(self, batch, step):
        self.bank = torch.cat([self.bank, batch.images.mean((2, 3))])
        yield from ()

    def forward(self, images):
        return Prediction((images.mean((2, 3))[:, None] - self.bank).norm(dim=2).amin(1))
'''
FAULTS = {  # check -> faulty classes
    "test_override_keys_are_checked": """
class SwallowsKeys(Right):
    def __init__(self, gain: Annotated[float, Field(description="of the map")] = 1.0, **more: Any) -> None:
        super().__init__(gain)
""",
    "test_settings_are_documented": """
class SilentSetting(Right):
    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(gain)

class UntypedSetting(Right):
    def __init__(self, gain=1.0) -> None:
        super().__init__(gain)
""",
    "test_unfitted_model_raises": """
class AnswersUntrained(Right):
    def __call__(self, images):
        return self.forward(images)
""",
    "test_fits": """
class FailsToFit(Right):
    def on_fit_start(self, fit):
        raise AssertionError("Input height (16) doesn't match model (14)")
""",
    "test_prediction_shapes": """
class WrongMapSize(Right):
    def forward(self, images):
        small = self.distance(images)[:, ::4, ::4]
        return Prediction(small.flatten(1).amax(1), small)

class WrongScoreShape(Right):
    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score[:, None], found.anomaly_map)

class NanScores(Right):
    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score * float("nan"), found.anomaly_map)

class NanMaps(Right):
    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score, found.anomaly_map / 0)

class NoPrediction(Right):
    def forward(self, images):
        return super().forward(images).score
""",
    "test_input_changes_the_score": """
class IgnoresInput(Right):
    def forward(self, images):
        return super().forward(torch.ones_like(images))
""",
    "test_batch_invariance": """
class DependsOnBatch(Right):
    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score / found.score.max(), found.anomaly_map)

class MapDependsOnBatch(Right):
    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score, found.anomaly_map - found.anomaly_map.mean())
""",
    "test_groups": """
class DependsOnItsGroup(Right):
    group = 2

    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score * (1 + 1e-6 * len(images)), found.anomaly_map)

class MapDependsOnItsGroup(Right):
    group = 2

    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score, found.anomaly_map * (1 + 1e-6 * len(images)))
""",
    "test_learns": """
class NothingToOptimise(Right):
    def configure_optimizers(self, plan):
        idle = torch.nn.Parameter(torch.zeros(1))
        return {"main": plan.optimization([idle], "sgd", learning_rate=0.1)}

class EmptyBank(OnePass):
    def training_step(self, batch, step):
        yield from ()

    def forward(self, images):
        return Prediction(images.mean((1, 2, 3)))
""",
    "test_deterministic": """
class Nondeterministic(Right):
    def on_fit_end(self, fit):
        noise = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
        self.mean.data += torch.rand(3, generator=noise)

class RandomAtPrediction(Right):
    def forward(self, images):
        return super().forward(images + 1e-5 * torch.rand_like(images))
""",
    "test_save_and_load": """
class ForgetsBuffer(Right):
    def on_fit_end(self, fit):
        self.scale = 3.0

    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score * self.scale, found.anomaly_map)

class UnsavedBuffer(Right):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("found", torch.zeros(1), persistent=False)

    def training_step(self, batch, step):
        self.found += len(batch.images)
        yield from super().training_step(batch, step)

    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.score + self.found, found.anomaly_map)
""",
    "test_state_is_tensors": """
class PickledState(Right):
    def get_extra_state(self):
        return {"anything": object}

    def set_extra_state(self, state):
        pass

class PickleInATensor(Right):
    def get_extra_state(self):
        import pickle
        return torch.frombuffer(bytearray(pickle.dumps({"a": 1})), dtype=torch.uint8)

    def set_extra_state(self, state):
        pass
""",
    "test_cpu_and_offline": """
class OpensSocket(Right):
    def __init__(self) -> None:
        super().__init__()
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)
        except Exception:
            pass  # swallowed, and seen all the same

class LooksUpAHost(Right):
    def on_fit_start(self, fit):
        try:
            socket.getaddrinfo("localhost", 80)
        except Exception:
            pass
""",
    "test_tiles": """
class RemembersImages(Right):
    calls = 0

    def forward(self, images):
        self.calls += 1
        return Prediction(self.distance(images).flatten(1).amax(1) + self.calls)
""",
    "test_region_of_interest": """
class ScoresTheWholeImage(Right):
    def forward(self, images):
        found = super().forward(images)
        return Prediction(found.anomaly_map.flatten(1).amax(1), found.anomaly_map)
""",
    "test_exports": """
class LoopsOverImages(Right):
    def forward(self, images):
        return Prediction(torch.stack([self.distance(image[None]).max() for image in images]))

class ExportsAnother(Right):
    def export_module(self):
        other = Right(1.001).eval()
        other.mean, other.fitted = self.mean, True
        return AnomalyModel.export_module(other)
""",
    "test_on_gpu": """
class StaysOnTheCpu(Right):
    def forward(self, images):
        return Prediction(self.distance(images).flatten(1).amax(1) + torch.ones(len(images)))
""",
    "test_card_is_complete": "",  # faulty cards, not classes
    "test_listing_imports_no_torch": "",  # a faulty plugin.py
}
PLUGIN = """
from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

def card(name, **changes):
    facts = {"target": f"toys.models:{name}", "family": "toy", "title": "T", "paper": "P", "year": 2020, "summary": "S"}
    return ModelCard(name=name.lower(), normalization="none", **{**facts, **changes})

ONE_PASS = {"OnePass": "one-pass", "EmptyBank": "one-pass"}
WHOLE = {"OnePass": "it describes the image as a whole"}

@hookimpl
def adcore_register_models():
    return [
        *(card(name, training=ONE_PASS.get(name, "gradient"), whole_image=WHOLE.get(name, "")) for name in NAMES),
        card("WrongTraining", target="toys.models:Right", training="one-pass"),
        card("WrongMultiple", target="toys.models:Right", size_multiple=14),
        card("Multiple", target="toys.models:Right", size_multiple=7, image_size=14),
        card("WrongChannels", target="toys.models:Right", channels="any"),
        card("NoSummary", target="toys.models:Right", summary=" "),
        card("NoYear", target="toys.models:Right", year=0),
        card("NoModel", target="collections:OrderedDict"),
    ]
"""
CLASSES = [
    (check, line.split("(")[0][6:]) for check, code in FAULTS.items() for line in code.split("\n") if line[:1] == "c"
]
CASES = [(check, name.lower()) for check, name in CLASSES]
CASES += [
    ("test_card_is_complete", name) for name in ("nosummary", "noyear", "nomodel", "wrongmultiple", "wrongchannels")
]
CASES += [("test_learns", "wrongtraining")]
CASES += [("test_listing_imports_no_torch", "heavy")]


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory):
    """Two installed distributions: toys, and one whose plugin.py imports torch."""
    site = tmp_path_factory.mktemp("site")
    names = ["Right", "OnePass", "Counted", *(name for _, name in CLASSES)]
    models = RIGHT + "".join(FAULTS.values())
    files = {"toys/__init__.py": "", "toys/models.py": models, "toys/plugin.py": f"NAMES = {names}\n{PLUGIN}"}
    write_distribution(site, "toys", files, "toys.plugin")
    heavy = f"import torch\nNAMES = []\n{PLUGIN}".replace("toys.models:{name}", "toys.models:Right")
    heavy = heavy[: heavy.index("    return [\n")] + "    return [card('Heavy')]\n"
    write_distribution(site, "heavy-toy", {"heavy_toy.py": heavy}, "heavy_toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        plugins.load_plugins.cache_clear()
        yield site
    plugins.load_plugins.cache_clear()
    for module in [name for name in sys.modules if name.startswith(("toys", "heavy_toy"))]:
        del sys.modules[module]


@pytest.mark.parametrize(("check", "model"), CASES)
def test_a_fault_is_caught_by_its_check(check, model) -> None:
    reason, available = NEEDS.get(check, ("", True))
    if not available:
        pytest.skip(reason)
    (outcome,) = check_models([model], [check], image_size=16)
    assert outcome.result == "failed"
    assert outcome.reason


def test_every_check_has_a_fault_that_it_catches() -> None:
    assert {check for check, _ in CASES} == set(check_names())


@pytest.mark.parametrize("model", ["right", "onepass"])
def test_a_right_model_passes_all(model) -> None:
    outcomes = check_models([model], image_size=16)
    passes = {check: "ok" if NEEDS.get(check, ("", True))[1] else "skipped" for check in check_names()}
    assert {o.check: o.result for o in outcomes} == passes
    assert [o.check for o in outcomes] == check_names()


def test_the_kit_uses_images_that_the_card_takes() -> None:
    outcomes = check_models(["multiple"], image_size=16)  # 16 -> 21
    assert {outcome.result for outcome in outcomes if outcome.check not in NEEDS} == {"ok"}


def test_a_class_fits_its_model_twice_and_asks_once_for_a_plugin_whether_it_imports_torch(monkeypatch) -> None:
    asked = []
    run = base.subprocess.run
    monkeypatch.setattr(
        base.subprocess, "run", lambda command, **options: asked.append(command) or run(command, **options)
    )
    base._imports_torch.cache_clear()
    outcomes = check_models(["counted"], image_size=16)
    assert {outcome.result for outcome in outcomes if outcome.check not in NEEDS} == {"ok"}
    assert sys.modules["toys.models"].Counted.fits == 2
    check_models(["right", "onepass"], ["test_listing_imports_no_torch"])
    assert len(asked) == 1


def test_a_model_that_cannot_be_fitted_is_one_failure() -> None:
    results = {outcome.check: outcome for outcome in check_models(["failstofit"], image_size=16)}
    assert [check for check, outcome in results.items() if outcome.result == "failed"] == ["test_fits"]
    assert "Input height (16) doesn't match model (14)" in results["test_fits"].reason
    assert results["test_prediction_shapes"].result == "skipped"


def test_the_fixtures_of_the_kit_give_no_warning(tmp_path, monkeypatch) -> None:
    """A third party's class that overrides `fit` as a method, under a pytest that makes warnings errors."""
    code = """
from adcore.testing import ModelConformance

class TestToy(ModelConformance):
    model = "right"
    image_size = 16

    def fit(self, seed=0):
        return super().fit(seed)
"""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    file = tmp_path / "test_third_party.py"
    file.write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error::pytest.PytestWarning\n")
    options = ["-p", "no:terminal", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", f"{tmp_path}/pytest.ini"]
    assert pytest.main([*options, f"{file}::TestToy::test_state_is_tensors"]) == 0


def test_every_check_says_what_a_failure_means_and_how_to_mend_it() -> None:
    for check in check_names():
        assert "Fails " in explain(check), check
        assert "Fix: " in explain(check), check


def test_an_expected_failure_has_to_name_a_check_and_to_fail() -> None:
    with pytest.raises(TypeError, match="test_of_nothing"):
        type("TestToy", (ModelConformance,), {"expected_failures": {"test_of_nothing": "?"}})
    known = {"test_deterministic": "draws from the system"}
    (outcome,) = check_models(["nondeterministic"], ["test_deterministic"], image_size=16, expected_failures=known)
    assert outcome.result == "skipped"
    (outcome,) = check_models(["right"], ["test_deterministic"], image_size=16, expected_failures=known)
    assert outcome.result == "failed"


def test_check_plugin_prints_a_table_and_tells_by_its_exit_code(run_cli) -> None:
    code, out, _ = run_cli("check-plugin", "toys", "--model", "onepass", "--image-size", 16)
    assert code == 0
    skipped = sum(not available for _, available in NEEDS.values())
    assert f"{len(check_names()) - skipped} checks passed, 0 failed, {skipped} skipped" in out
    code, out, _ = run_cli("check-plugin", "toys", "--model", "wrongmapsize", "--model", "right", "--image-size", 16)
    assert code == 1
    (row,) = (line.split() for line in out.splitlines() if line.startswith("test_prediction_shapes "))
    assert row[1:] == ["failed", "ok"]
    assert "wrongmapsize: test_prediction_shapes failed: anomaly_map has shape (3, 4, 4), not (3, 16, 16)" in out
    assert "Fix: " in out
    code, _, err = run_cli("check-plugin", "no-such-package")
    assert code == 2
    assert "heavy-toy" in err
    assert err.count("\n") == 1
    assert run_cli("check-plugin", "toys", "--model", "other")[0] == 2
