"""What Windows lacks is not needed, and files that were written there are understood."""

from __future__ import annotations

import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import pytest
import warm
from adcore.data.dataset import ImageDataset, make_loader
from adcore.errors import ConfigError
from adcore.experiments.conditions import load_conditions
from adcore.files import portable_path
from adcore.preprocess import Preprocess
from adcore.registry import open_dataset
from adcore.request import parse_data
from adcore.testing import write_tiny_mvtec

PACKAGES = ("adcore_runtime", "adcore", "adm_memory", "adm_flow", "adm_distill", "adm_recon", "adm_foundation")
INSTALLED = [name for name in PACKAGES if find_spec(name)]
IMPORT_ALL = f"""
import importlib, os, pkgutil, sys  # os imports some of what is then taken away

for name in [name for name in sys.modules if name.partition(".")[0] in {INSTALLED}]:
    del sys.modules[name]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "pwd", "grp", "termios"):
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Absent())
names = []
for root in {INSTALLED}:
    package = importlib.import_module(root)
    names += [found.name for found in pkgutil.walk_packages(package.__path__, root + ".")]
for name in names:
    importlib.import_module(name)
import torch
from adcore.training.device import device_record
print(len(names), device_record(torch.device("cpu"))["name"])
"""
needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows has these paths itself")


def test_every_module_of_every_package_can_be_imported_without_what_posix_alone_has(tmp_path) -> None:
    (tmp_path / "imports.py").write_text(IMPORT_ALL)
    status, output = warm.run(["imports.py"], tmp_path)
    assert status == 0, output
    count, _, name = output.strip().partition(" ")
    assert int(count) > 80
    assert name


def test_what_a_loader_sends_to_its_processes_can_be_sent_where_there_is_no_fork(tmp_path) -> None:
    reader = open_dataset("mvtec", str(write_tiny_mvtec(tmp_path)))
    dataset = ImageDataset(reader.samples("part"), reader, Preprocess((16, 16)))
    sent = make_loader(dataset, 2, shuffle=False, seed=0, num_workers=0)._loader
    received = pickle.loads(pickle.dumps((sent.dataset, sent.collate_fn)))
    batch, skipped = received[1]([received[0][0, 0], received[0][1, 0]])  # (index, epoch)
    assert (tuple(batch.images.shape), skipped) == ((2, 3, 16, 16), [])


def hdmap(folder: Path) -> Path:
    """A dataset of two files that are listed and not read."""
    for part, count in (("train/good", 3), ("test/good", 2), ("test/fault", 2)):
        (folder / "data" / "gears" / "domain_A" / part).mkdir(parents=True)
        for number in range(count):
            (folder / "data" / "gears" / "domain_A" / part / f"{number}.tiff").write_bytes(b"")
    return folder / "data" / "gears"


def conditions(folder: Path, root: str) -> Path:
    """`root` stands in the file as it is given."""
    file = folder / "conditions.json"
    file.write_text(f'{{"one": {{"model_type": "toy", "source_domain": "domain_A", "dataset_root": "{root}"}}}}')
    return file


@needs_posix
def test_a_conditions_file_from_windows_finds_its_data(tmp_path, monkeypatch) -> None:
    hdmap(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert portable_path(r"data\gears") == Path("data/gears")
    with pytest.raises(ConfigError) as failure:
        load_conditions(conditions(tmp_path, r"data\\gears"))
    assert "dataset_root" not in str(failure.value)  # what is wrong is the model


@needs_posix
@pytest.mark.parametrize(
    ("written", "message"),
    [
        (r"C:\\data\\gears", r"dataset_root: C:\data\gears is a path on Windows; give the folder on this machine"),
        ("C:/data/gears", "is a path on Windows"),
        (r"C:\data\gears", "write each backslash of a path twice, or /"),
        (r"C:\test", "write each backslash of a path twice, or /"),
        (r"C:\base", "write each backslash of a path twice, or /"),
    ],
)
def test_a_path_that_cannot_be_right_here_is_one_line_that_says_what_to_write(tmp_path, written, message) -> None:
    with pytest.raises(ConfigError) as failure:
        load_conditions(conditions(tmp_path, written))
    assert message in str(failure.value)


def test_a_folder_without_its_layout_is_not_taken_for_a_layout_called_c(tmp_path) -> None:
    assert parse_data("mvtec://nowhere/data") == ("mvtec", Path("//nowhere/data"))
    assert parse_data("mvtec:data") == ("mvtec", Path("data"))
    with pytest.raises(ConfigError, match=r"as in --data mvtec:C:\\data"):
        parse_data(r"C:\data")


@needs_posix
def test_a_name_with_a_backslash_that_is_there_is_that_file(tmp_path) -> None:
    name = tmp_path / "a\\b"
    assert portable_path(str(name)) == tmp_path / "a" / "b"
    name.touch()
    assert portable_path(str(name)) == name
