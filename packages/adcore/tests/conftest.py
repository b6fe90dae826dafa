"""Fixtures that the tests of adcore share."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

with suppress(ImportError):  # its import closes every logging handler, and absl's closes pytest's stderr: before absl
    import submitit  # noqa: F401


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images: ADCORE_TEST_DATA, or ../shared/data as seen from the repository."""
    folder = Path(os.environ.get("ADCORE_TEST_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real test images in {folder}; set ADCORE_TEST_DATA to their folder")
    return folder


@pytest.fixture
def make_images() -> Callable[..., Path]:
    """make_images(root, *names, size): small gray images at these places below root; `{1-3}.png` stands for three."""
    import numpy as np
    from PIL import Image

    def make(root: Path, *names: str, size: tuple[int, int] = (12, 8)) -> Path:
        for name in names:
            before, _, rest = name.partition("{")
            span, _, after = rest.partition("}")
            first, last = map(int, span.split("-")) if span else (0, 0)
            for number in range(first, last + 1):
                path = root / (f"{before}{number}{after}" if span else name)
                path.parent.mkdir(parents=True, exist_ok=True)
                values = np.full(size[::-1], 10 * number % 256, np.uint8)
                if "mask" in name or "ground_truth" in name:
                    values[2:4, 3:6] = 255
                Image.fromarray(values).save(path)
        return root

    return make


@pytest.fixture
def refuses() -> Callable[..., None]:
    """refuses(call, *words): the call must raise a DataError of one line that has all these words."""
    from adcore.errors import DataError

    def check(call: Callable[[], object], *words: str) -> None:
        with pytest.raises(DataError) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message
        assert all(word in message for word in words), message

    return check


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from adcore.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["adcore", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(autouse=True)
def _clean_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's globals, the developer's environment, or weights in the developer's home."""
    settings = import_module("adcore.settings")  # the package's attribute of that name may be the function

    monkeypatch.setattr(settings, "_globals", {})
    for key in settings._KEYS:
        monkeypatch.delenv(f"ADCORE_{key.upper()}", raising=False)


@pytest.fixture
def install_toy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """install_toy(card, kind): every model name is that of `kind`, of a package toy-package 1.0."""
    from adcore import registry
    from adcore.plugins import Origin

    def install(card: object, kind: type) -> None:
        monkeypatch.setattr(registry, "model_card", lambda name: card)
        monkeypatch.setattr(registry, "model_origin", lambda name: Origin("toy", "toy-package", "1.0"))
        monkeypatch.setattr(registry, "load_target", lambda target: kind)

    return install
