"""Weights that are pulled are checked; weights that are packed are found where the wheel is installed."""

from __future__ import annotations

import csv
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import zipfile
from base64 import urlsafe_b64encode
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from adcore.backbones.pack import pack
from adcore.backbones.pull import pull
from adcore.errors import WeightsError
from adcore.registry import backbone_card
from adcore.settings import set_globals
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "my resnet.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), path)
    return path


@pytest.fixture
def site(tmp_path):
    """Unpack wheels into a folder that a new Python sees as installed: ask(site, code) -> its output."""

    def ask(wheel: Path, code: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "site"
        zipfile.ZipFile(wheel).extractall(folder)
        environment = {**os.environ, "PYTHONPATH": str(folder), "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )

    return ask


def test_a_packed_wheel_is_valid_and_always_the_same(weights, tmp_path) -> None:
    first, second = pack(weights, "resnet18", tmp_path / "a"), pack(weights, "resnet18", tmp_path / "b")
    assert first.name == "adcore_weights_resnet18-1.0.0-py3-none-any.whl"
    assert first.read_bytes() == second.read_bytes()
    assert os.listdir(tmp_path / "a") == [first.name]
    with zipfile.ZipFile(first) as archive:
        record = list(csv.reader(archive.read("adcore_weights_resnet18-1.0.0.dist-info/RECORD").decode().splitlines()))
        assert sorted(row[0] for row in record) == sorted(archive.namelist())
        for path, digest, size in record[:-1]:
            content = archive.read(path)
            expected = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(content))


def test_an_installed_wheel_of_weights_is_found_and_an_altered_one_is_refused(weights, tmp_path, site) -> None:
    wheel = pack(weights, "resnet18", tmp_path)
    code = "from adcore.backbones.resolve import resolve; r = resolve('resnet18'); print(r.origin, r.path)"
    done = site(wheel, code)
    assert done.returncode == 0, done.stderr
    origin, path = done.stdout.strip().split(" ", 1)
    assert origin == "wheel"
    assert Path(path).read_bytes() == weights.read_bytes()
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    refused = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "is not the file its name says" in refused.stderr


def test_a_wheel_may_register_a_backbone_of_a_new_name(weights, tmp_path, site) -> None:
    wheel = pack(weights, "resnet18", tmp_path, new_name="resnet18_parts")
    code = "from adcore.backbones.features import FeatureExtractor as F; f = F('resnet18_parts', ['layer1']); "
    code += "print(f.net.weights_info.backbone, f.channels)"
    done = site(wheel, code)
    assert done.stdout.strip() == "resnet18_parts [64]", done.stderr


def test_what_does_not_fit_is_not_packed(weights, tmp_path) -> None:
    with pytest.raises(WeightsError, match="not packed: .* does not fit backbone 'resnet34'"):
        pack(weights, "resnet34", tmp_path / "out")
    with pytest.raises(WeightsError, match=r"nothing\.pth does not exist"):
        pack(tmp_path / "nothing.pth", "resnet18", tmp_path / "out")
    wrong = tmp_path / "resnet18-f37072fd.pth"
    wrong.write_bytes(weights.read_bytes())
    with pytest.raises(WeightsError, match="is not the file its name says"):
        pack(wrong, "resnet18", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def server(tmp_path):
    """A server on this machine that serves the folder `hub`: its address."""
    (tmp_path / "hub").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments, directory=tmp_path / "hub")

        def log_message(self, *_) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def served(server: str, content: bytes, tmp_path: Path, promised: bytes | None = None):
    name = f"net-{hashlib.sha256(promised or content).hexdigest()[:8]}.pth"
    (tmp_path / "hub" / name).write_bytes(content)
    return replace(backbone_card("resnet18"), hub=f"{server}/{name}", filenames=(name,))


def test_pull_keeps_what_is_right_and_does_not_download_it_twice(server, tmp_path) -> None:
    card = served(server, b"weights", tmp_path)
    set_globals(backbone_dir=tmp_path / "kept")
    path = pull(card)
    assert path.parent == tmp_path / "kept"
    assert path.read_bytes() == b"weights"
    (tmp_path / "hub" / path.name).unlink()
    assert pull(card) == path


def test_pull_keeps_nothing_that_is_wrong(server, tmp_path) -> None:
    card = served(server, b"something else", tmp_path, promised=b"weights")
    with pytest.raises(WeightsError, match="gave a file with sha256 .* nothing was kept"):
        pull(card, tmp_path / "kept")
    assert os.listdir(tmp_path / "kept") == []


def test_pull_without_a_network_is_one_clear_line(tmp_path) -> None:
    with socket.socket() as taken:  # bound, but not listening: refused at once
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/net.pth"
        card = replace(backbone_card("resnet18"), hub=address, filenames=("net.pth",))
        with pytest.raises(WeightsError, match="cannot download .*; get it on a connected machine") as caught:
            pull(card, tmp_path / "kept")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path / "kept") == []
    with pytest.raises(WeightsError, match="no download for backbone 'tf_efficientnet_lite0'"):
        pull(backbone_card("tf_efficientnet_lite0"))


def test_pack_on_the_command_line(weights, tmp_path, run_cli) -> None:
    code, out, _ = run_cli("backbones", "pack", weights, "--name", "resnet18", "--out", tmp_path, "--as", "my_net")
    assert code == 0
    assert (tmp_path / "adcore_weights_my_net-1.0.0-py3-none-any.whl").is_file()
    assert "pip install --no-index" in out
    assert run_cli("backbones", "pull", "tf_efficientnet_lite0")[0] == 2
