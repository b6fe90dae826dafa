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


def test_it_trains_and_finds_the_squares(site) -> None:
    done = adcore(site, "train", NAME, "--data", "mvtec:data", "--set", "image_size=64", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads((site / "run" / "result.json").read_text())["test"]["values"]["image_auroc"] > 0.9


def test_its_own_tests_pass(site) -> None:
    done = run(site, "-m", "pytest", "-q", str(site / NAME))
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


def test_it_passes_check_plugin(site) -> None:
    done = adcore(site, "check-plugin", NAME)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["a", NAME, "a-name-as-long-as-it-can-get-x"])
def test_it_is_clean(name, tmp_path) -> None:
    folder = write_plugin(name, tmp_path)
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
    assert len(lines) == 5


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
    monkeypatch.setitem(FILES, "src", "a file where a folder has to be")
    with pytest.raises(OSError):
        write_plugin(NAME, tmp_path)
    assert os.listdir(tmp_path) == []
