"""What really installed plugins do, good and broken: distributions in a folder on the path, asked from a new Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from adcore import hookspecs
from adcore.plugins import HOOKS
from adcore.testing import write_tiny_mvtec
from adcore.testing.site import write_distribution

GOOD = """
from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_models():
    facts = {"family": "toy", "title": "T", "paper": "P", "year": 2020, "summary": "S", "normalization": "none"}
    return [ModelCard(name="NAME", target="toy_model:Toy", **facts)]
"""
BROKEN = {
    "import error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax error": ("def", "SyntaxError"),
    "exit at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "exception in a hook": (GOOD.replace("facts =", "1 / 0\n    facts ="), "ZeroDivisionError: division by zero"),
    "wrong return type": (GOOD.replace("return [", "return 'x' or ["), "must return a list of ModelCard, not str"),
    "list of something else": (GOOD.replace("return [", "return [{}] or ["), "not a list of dict"),
    "no hook": ("", "implements no adcore hook"),
    "misspelt hook": (GOOD.replace("register_models", "register_model"), "adcore_register_model"),
}


def adcore(site: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a new process that sees the distributions in `site`."""
    return subprocess.run(
        [sys.executable, "-c", "from adcore.cli import main; main()", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def install_good(site: Path, name: str = "good-toy") -> None:
    write_distribution(site, name, {f"{name.replace('-', '_')}.py": GOOD.replace("NAME", name)}, name.replace("-", "_"))


def listed(done: subprocess.CompletedProcess[str]) -> set[str]:
    assert done.returncode == 0, done.stderr
    return {card["name"] for card in json.loads(done.stdout)}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_one_line_and_all_others_work(fault, tmp_path) -> None:
    code, words = BROKEN[fault]
    write_distribution(tmp_path, "bad-toy", {"bad_toy.py": code}, "bad_toy", version="2.3")
    install_good(tmp_path)
    done = adcore(tmp_path, "list-models", "--json")
    assert {"good-toy", "padim"} <= listed(done)
    (line,) = done.stderr.splitlines()
    assert "plugin 'bad-toy' (bad-toy 2.3) is broken" in line
    assert words in line
    silent = adcore(tmp_path, "list-models", "--json", ADCORE_DISABLE_PLUGINS="bad-toy")
    assert silent.stderr == ""


def test_doctor_tells_all_about_a_broken_plugin_and_help_still_works(tmp_path) -> None:
    write_distribution(tmp_path, "bad-toy", {"bad_toy.py": "import no_such_module"}, "bad_toy")
    done = adcore(tmp_path, "doctor")
    assert done.returncode == 1
    assert "BROKEN  plugin 'bad-toy' (bad-toy 1.0)" in done.stdout
    assert 'bad_toy.py", line 1' in done.stdout
    assert adcore(tmp_path, "--help").returncode == 0
    checked = adcore(tmp_path, "check-plugin", "bad-toy")
    assert checked.returncode == 1
    assert "no_such_module" in checked.stdout


def test_a_plugin_for_another_adcore_is_left_out(tmp_path) -> None:
    files = {"old_toy.py": GOOD.replace("NAME", "old-toy")}
    write_distribution(tmp_path, "old-toy", files, "old_toy", requires=["torch", "adcore>=7,<8"])
    done = adcore(tmp_path, "list-models", "--json")
    assert "old-toy" not in listed(done)
    assert "it needs adcore<8,>=7, but adcore 0.1.0 is installed" in done.stderr


def test_a_name_that_two_packages_register_is_an_error_that_names_both(tmp_path) -> None:
    for name in ("one-toy", "two-toy"):
        module = name.replace("-", "_")
        write_distribution(tmp_path, name, {f"{module}.py": GOOD.replace("NAME", "twin")}, module)
    both = "'twin' is registered by 'one-toy' (one-toy 1.0) and 'two-toy' (two-toy 1.0)"
    listing = adcore(tmp_path, "list-models", "--json")
    assert "padim" in listed(listing)
    assert "twin" not in listed(listing)
    assert both in listing.stderr
    done = adcore(tmp_path, "info", "twin")
    assert done.returncode == 2
    assert both in done.stderr
    assert adcore(tmp_path, "check-plugin", "two-toy").returncode == 1


def test_doctor_finds_a_plugin_that_hangs_and_one_that_ends_the_process(tmp_path) -> None:
    write_distribution(tmp_path, "slow-toy", {"slow_toy.py": "import time\ntime.sleep(1000)"}, "slow_toy")
    write_distribution(tmp_path, "exit-toy", {"exit_toy.py": "import os\nos._exit(7)"}, "exit_toy")
    write_distribution(tmp_path, "stop-toy", {"stop_toy.py": "raise KeyboardInterrupt"}, "stop_toy")
    install_good(tmp_path)
    told = adcore(tmp_path, "doctor", "--plugin-seconds", "1")
    assert told.returncode == 1, told.stderr
    assert "  ok      good-toy (good-toy 1.0)" in told.stdout
    assert "plugin 'exit-toy' (exit-toy 1.0) is broken and was left out: it ends the process when it is imported" in (
        told.stdout
    )
    assert "exit code 7" in told.stdout
    assert "plugin 'stop-toy' (stop-toy 1.0) is broken and was left out: KeyboardInterrupt" in told.stdout
    assert "it did not load within 1 s; set ADCORE_DISABLE_PLUGINS=slow-toy" in told.stdout
    assert 'slow_toy.py", line 2' in told.stdout  # where it hangs
    off = {"ADCORE_DISABLE_PLUGINS": "slow-toy,exit-toy,stop-toy"}
    assert "good-toy" in listed(adcore(tmp_path, "list-models", "--json", **off))


def test_of_a_hundred_plugins_one_is_broken_and_the_rest_is_listed(tmp_path) -> None:
    for number in range(99):
        install_good(tmp_path, f"toy-{number}")
    write_distribution(tmp_path, "bad-toy", {"bad_toy.py": "1 / 0"}, "bad_toy")
    done = adcore(tmp_path, "list-models", "--family", "toy", "--json")
    assert listed(done) == {f"toy-{number}" for number in range(99)}
    assert len(done.stderr.splitlines()) == 1


READER = """
from pathlib import Path
from adcore.cards import DatasetCard
from adcore.data.samples import DatasetReader, Sample
from adcore.hookspecs import hookimpl

class Flat(DatasetReader):
    layout = "good*.png for training, test_good*.png and test_bad*.png, all in one folder"

    def categories(self):
        return ["all"]

    def samples(self, category):
        found = []
        for path in sorted(self.root.glob("*.png")):
            split = "test" if path.name.startswith("test_") else "train"
            found.append(Sample(path, split, int("bad" in path.name), category))
        return found

@hookimpl
def adcore_register_datasets():
    return [DatasetCard("flat", "flat_files:Flat", "Flat", Flat.layout)]
"""
MODEL = """
import torch
from adcore.model import AnomalyModel, Prediction

class Toy(AnomalyModel):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("brightest", torch.zeros(()))

    def training_step(self, batch, step):
        self.brightest = torch.maximum(self.brightest, batch.images.mean((1, 2, 3)).amax())
        yield from ()

    def forward(self, images):
        return Prediction(images.mean((1, 2, 3)) - self.brightest)
"""


@pytest.mark.slow  # docs/07-writing-a-plugin.md checks a dataset of a plugin in every run of the suite
def test_a_dataset_reader_of_a_third_party_is_trained_on(tmp_path) -> None:
    site, data = tmp_path / "site", tmp_path / "flat"
    write_distribution(site, "flat-files", {"flat_files.py": READER}, "flat_files")
    install_good(site)
    (site / "toy_model.py").write_text(MODEL)
    source = write_tiny_mvtec(tmp_path / "mvtec") / "part"
    data.mkdir()
    for path in sorted(source.rglob("*.png")):
        prefix = {"good": "good", "spot": "bad"}.get(path.parent.name)
        if path.parent.parent.name in ("train", "test"):
            path.rename(data / f"{'test_' if path.parent.parent.name == 'test' else ''}{prefix}{path.name}")
    done = adcore(site, "train", "good-toy", "--data", f"flat:{data}", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["values"]["image_auroc"] == 1.0
    checked = adcore(site, "check-plugin", "flat-files", "--data", f"flat:{data}")
    assert checked.returncode == 0, checked.stdout
    assert "7 checks passed, 0 failed, 0 skipped" in checked.stdout


def test_a_backbone_of_a_third_party_is_listed_with_its_weights(tmp_path) -> None:
    card = """
from adcore.cards import BackboneCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_backbones():
    wheel = ("net-weights", "net_weights/net.pth")
    return [BackboneCard("their_net", "resnet18", ("their_net.pth",), "them", "MIT", 1, wheel=wheel)]
"""
    files = {"net_weights/__init__.py": card, "net_weights/net.pth": "weights"}
    write_distribution(tmp_path, "net-weights", files, "net_weights")
    done = adcore(tmp_path, "backbones", "where", "their_net")
    assert done.stdout.strip() == str(tmp_path / "net_weights" / "net.pth"), done.stderr
    (tmp_path / "net_weights" / "net.pth").unlink()
    missing = adcore(tmp_path, "backbones", "where", "their_net")
    assert missing.returncode == 2
    assert "or install the wheel net-weights" in missing.stderr


def test_every_hook_is_documented_and_exercised() -> None:
    hooks = {name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")}
    assert hooks == {*HOOKS, "adcore_register_commands"}
    page = (Path(__file__).parent.parent / "docs" / "07-writing-a-plugin.md").read_text(encoding="utf-8")
    for hook in hooks:
        assert getattr(hookspecs, hook).__doc__.strip()
        assert f"`{hook}`" in page
        examples = Path(__file__).read_text(encoding="utf-8") + page  # tests/test_docs.py runs those of the page
        assert f"def {hook}(" in examples
