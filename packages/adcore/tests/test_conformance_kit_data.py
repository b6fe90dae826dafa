"""Every check of datasets and backbones catches the fault it is there for; right ones pass all of them."""

from __future__ import annotations

import os
import sys

import pytest
from adcore import plugins
from adcore.testing import DatasetConformance, write_tiny_mvtec
from adcore.testing.checks import check_names, explain, run_checks
from adcore.testing.site import write_distribution

READERS = """
from typing import Annotated, Any
from dataclasses import replace
import torch
from pydantic import Field
from adcore.data.mvtec import MVTec

class Right(MVTec):
    def __init__(self, root, limit: Annotated[int, Field(ge=1, description="samples of each category")] = 100) -> None:
        super().__init__(root)
        self.limit = limit

    def samples(self, category):
        return super().samples(category)[: self.limit]
"""
FAULTS = {  # check -> faulty readers
    "test_options_are_checked": """
class SwallowsOptions(Right):
    def __init__(self, root, **more) -> None:
        super().__init__(root)

class SilentOption(Right):
    def __init__(self, root, limit: int = 3) -> None:
        super().__init__(root)
""",
    "test_categories_are_sorted": """
class Unsorted(Right):
    def categories(self):
        return super().categories()[::-1]

class NoCategory(Right):
    def categories(self):
        return []
""",
    "test_samples_are_valid": """
class WrongSplit(Right):
    def samples(self, category):
        return [replace(sample, split="training") for sample in super().samples(category)]

class WrongOrder(Right):
    def samples(self, category):
        return super().samples(category)[::-1]

class Twice(Right):
    def samples(self, category):
        return [sample for sample in super().samples(category) for _ in range(2)]

class WrongCategory(Right):
    def samples(self, category):
        return [replace(sample, category="all") for sample in super().samples(category)]

class Missing(Right):
    def samples(self, category):
        return [replace(sample, image_path=sample.image_path.with_suffix(".gone")) for sample in super().samples(category)]
""",
    "test_images_are_decoded": """
class Gray(Right):
    def image(self, sample):
        return super().image(sample)[:1]

class Bytes(Right):
    def image(self, sample):
        return (super().image(sample) * 255).byte()

class NotFinite(Right):
    def image(self, sample):
        return super().image(sample) / 0
""",
    "test_masks_fit_their_images": """
class FloatMask(Right):
    def mask(self, sample):
        found = super().mask(sample)
        return None if found is None else found.float()

class SmallMask(Right):
    def mask(self, sample):
        found = super().mask(sample)
        return None if found is None else found[::2, ::2]
""",
    "test_card_is_complete": "",
    "test_listing_imports_no_torch": "",
}
CASES = [
    (check, line.split("(")[0][6:].lower())
    for check, code in FAULTS.items()
    for line in code.split("\n")
    if line[:1] == "c"
]
CASES += [("test_card_is_complete", "nolayout"), ("test_card_is_complete", "noreader")]
CASES += [("test_listing_imports_no_torch", "heavy-data")]
PLUGIN = """
from adcore.cards import BackboneCard, DatasetCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_datasets():
    cards = [DatasetCard(name.lower(), f"readers.files:{name}", "T", "files") for name in NAMES]
    return [
        *cards,
        DatasetCard("nolayout", "readers.files:Right", "T", " "),
        DatasetCard("noreader", "collections:OrderedDict", "T", "files"),
    ]

@hookimpl
def adcore_register_backbones():
    facts = (("x.pth",), "them", "MIT", 1)
    return [
        BackboneCard("net", "resnet18", *facts),
        BackboneCard("no-net", "resnet_18_of_ours", *facts),
        BackboneCard("wrong-option", "resnet18", *facts, options={"no_such_option": 1}),
        BackboneCard("no-licence", "resnet18", ("x.pth",), "them", "", 1),
        BackboneCard("no-file", "resnet18", (), "them", "MIT", 1),
    ]
"""
HEAVY = """
import torch
from adcore.cards import BackboneCard, DatasetCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_datasets():
    return [DatasetCard("heavy-data", "readers.files:Right", "T", "files")]

@hookimpl
def adcore_register_backbones():
    return [BackboneCard("heavy-net", "resnet18", ("x.pth",), "them", "MIT", 1)]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tiny_mvtec(root, "a")
    write_tiny_mvtec(root, "b")
    return root


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory):
    """Two installed distributions: one of many readers, and one whose plugin module imports torch."""
    folder = tmp_path_factory.mktemp("site")
    names = [
        "Right",
        *(line.split("(")[0][6:] for code in FAULTS.values() for line in code.split("\n") if line[:1] == "c"),
    ]
    files = {"readers/__init__.py": "", "readers/files.py": READERS + "".join(FAULTS.values())}
    write_distribution(
        folder, "readers", {**files, "readers/plugin.py": f"NAMES = {names}\n{PLUGIN}"}, "readers.plugin"
    )
    write_distribution(folder, "heavy-reader", {"heavy_reader.py": HEAVY}, "heavy_reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        plugins.load_plugins.cache_clear()
        yield
    plugins.load_plugins.cache_clear()
    for module in [name for name in sys.modules if name.startswith(("readers", "heavy_reader"))]:
        del sys.modules[module]


@pytest.mark.parametrize(("check", "name"), CASES)
def test_a_fault_of_a_dataset_is_caught_by_its_check(check, name, data) -> None:
    (outcome,) = run_checks("dataset", {name: {"root": str(data)}}, [check])
    assert outcome.result == "failed"
    assert outcome.reason


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("test_network_builds", "no-net"),
        ("test_network_builds", "wrong-option"),
        ("test_card_is_complete", "no-licence"),
        ("test_card_is_complete", "no-file"),
        ("test_listing_imports_no_torch", "heavy-net"),
    ],
)
def test_a_fault_of_a_backbone_is_caught_by_its_check(check, name) -> None:
    (outcome,) = run_checks("backbone", {name: {}}, [check])
    assert outcome.result == "failed"
    assert outcome.reason


def test_features_that_ignore_the_size_are_caught() -> None:
    attributes = {"net": {"image_sizes": ((64, 64), (64, 64))}}
    (outcome,) = run_checks("backbone", attributes, ["test_features_at_two_sizes"])
    assert outcome.result == "failed"
    assert "two sizes of image have features of one shape" in outcome.reason


def test_right_ones_pass_all(data) -> None:
    for name in ("right", "mvtec"):
        outcomes = run_checks("dataset", {name: {"root": str(data)}})
        assert [outcome for outcome in outcomes if outcome.result != "ok"] == []
        assert [outcome.check for outcome in outcomes] == check_names("dataset")
    outcomes = run_checks("backbone", {"net": {}})
    assert [(outcome.check, outcome.result) for outcome in outcomes] == [
        (check, "ok") for check in check_names("backbone")
    ]


def test_every_check_of_a_dataset_has_a_fault_and_says_what_a_failure_means() -> None:
    assert {check for check, _ in CASES} == set(check_names("dataset"))
    for kind in ("dataset", "backbone"):
        for check in check_names(kind):
            assert "Fails " in explain(check, kind), check
            assert "Fix: " in explain(check, kind), check


def test_check_plugin_runs_them_for_all_that_a_package_registers(run_cli, data) -> None:
    code, out, _ = run_cli("check-plugin", "readers", "--data", f"right:{data}")
    assert code == 1
    assert "no-net: test_network_builds failed: " in out
    assert "resnet_18_of_ours" in out
    rows = {
        line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith(("datasets", "test_images_"))
    }
    assert dict(zip(rows["datasets"], rows["test_images_are_decoded"], strict=True))["right"] == "ok"
    assert dict(zip(rows["datasets"], rows["test_images_are_decoded"], strict=True))["gray"] == "skipped"
    assert "the skipped checks need data: --data swallowsoptions:ROOT" in out


class TestRight(DatasetConformance):
    """As a third party writes it: small data in the layout."""

    dataset = "right"
    options = {"limit": 2}  # noqa: RUF012

    def write_data(self, folder):
        write_tiny_mvtec(folder)
