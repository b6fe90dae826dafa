"""The package that `adcore new-plugin` writes works as it is: installed, listed, trained, tested, checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from adcore.errors import ConfigError
from adcore.scaffold import FILES, write_plugin
from adcore.testing import write_tiny_mvtec

NAME = "spot-finder"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the generated source, its installation and small data in it."""
    if find_spec("hatchling") is None:
        pytest.skip("pip install hatchling, to build the generated package")
    folder = tmp_path_factory.mktemp("new")
    write_plugin(NAME, folder)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(folder / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder / NAME)], check=True)
    write_tiny_mvtec(folder / "data")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def adcore(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-c", "from adcore.cli import main; main()", *arguments)


def test_it_is_listed(site) -> None:
    cards = json.loads(adcore(site, "list-models", "--json").stdout)
    (card,) = (card for card in cards if card["name"] == NAME)
    assert (card["package"], card["package_version"]) == (NAME, "0.1.0")


@pytest.mark.slow  # docs/07-writing-a-plugin.md trains, tests and checks this package in every run of the suite
def test_it_trains_and_finds_the_squares(site) -> None:
    done = adcore(site, "train", NAME, "--data", "mvtec:data", "--set", "image_size=64", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads((site / "run" / "result.json").read_text())["test"]["values"]["image_auroc"] > 0.9


@pytest.mark.slow
def test_its_own_tests_pass(site) -> None:
    done = run(site, "-m", "pytest", "-q", str(site / NAME))
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.slow
def test_it_passes_check_plugin(site) -> None:
    done = adcore(site, "check-plugin", NAME)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=["dataset", pytest.param("backbone", marks=pytest.mark.slow)])
def other(request, tmp_path_factory) -> tuple[str, Path]:
    """A package of another kind, installed as it is on a machine without a network."""
    folder = tmp_path_factory.mktemp(request.param)
    name = f"my-{request.param}"
    write_plugin(name, folder, kind=request.param)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(folder / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder / name)], check=True)
    return request.param, folder


def test_a_package_of_another_kind_is_listed_and_passes_its_tests(other) -> None:
    kind, folder = other
    names = [card["name"] for card in json.loads(adcore(folder, f"list-{kind}s", "--json").stdout)]
    assert f"my-{kind}" in names
    done = run(folder, "-m", "pytest", "-q", str(folder / f"my-{kind}"))
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_wheel_carries_the_licence(site) -> None:
    (info,) = (site / "site").glob("spot_finder-*.dist-info")
    (licence,) = info.rglob("LICENSE")
    assert licence.read_text().startswith("MIT License")
    assert "License-Expression: MIT" in (info / "METADATA").read_text()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a", "model"),
        (NAME, "model"),
        ("a-name-as-long-as-it-can-get-x", "model"),
        ("a", "dataset"),
        ("a-name-as-long-as-it-can-get-x", "dataset"),
        ("a-name-as-long-as-it-can-get-x", "backbone"),
    ],
)
def test_it_is_clean(name, kind, tmp_path) -> None:
    folder = write_plugin(name, tmp_path, kind=kind)
    for command in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    lines = (folder / "tests" / "test_conformance.py").read_text().splitlines()
    assert kind == "dataset" or len(lines) == 5
    assert "@" not in "".join(p.read_text() for p in folder.rglob("*") if p.suffix in (".toml", ".md"))


@pytest.mark.parametrize(
    "name", ["My-Model", "1st", "a b", "../up", "a_b", "", "-x", "lambda", "json", "torch", "padim", "x" * 31]
)
def test_bad_names_are_refused_in_one_line(name, tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_plugin(name, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_left_alone(tmp_path, run_cli) -> None:
    (tmp_path / NAME).mkdir()
    code, _, err = run_cli("new-plugin", NAME, "--out", tmp_path)
    assert code == 2
    assert "exists already" in err
    assert os.listdir(tmp_path / NAME) == []
    assert os.listdir(tmp_path) == [NAME]


def test_nothing_is_left_of_a_failed_write(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(FILES["model"], "src", "a file where a folder has to be")
    with pytest.raises(OSError):
        write_plugin(NAME, tmp_path)
    assert os.listdir(tmp_path) == []
