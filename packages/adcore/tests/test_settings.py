"""Settings: which source wins, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import adcore
import pytest
from adcore.errors import ConfigError
from adcore.settings import set_globals, settings


def test_order_is_file_then_environment_then_globals(tmp_path, monkeypatch) -> None:
    (tmp_path / "adcore.toml").write_text('seed = 1\nbackbone_dir = "weights"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert settings().seed == 1
    assert settings().backbone_dir == tmp_path / "weights"
    monkeypatch.setenv("ADCORE_SEED", "2")
    assert settings().seed == 2
    adcore.set_globals(seed=3, dataset_dir="x")
    assert settings().seed == 3
    assert settings().dataset_dir == Path("x")


def test_unknown_and_ill_typed_settings_are_named(tmp_path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'sead'; valid ones: .*seed"):
        set_globals(sead=1)
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        set_globals(seed="many")
    assert settings().seed == 42
    (tmp_path / "adcore.toml").write_text("seed = = 1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"adcore\.toml is not valid TOML"):
        settings()


def test_downloads_are_off_unless_asked_for(monkeypatch) -> None:
    assert settings().allow_downloads is False
    monkeypatch.setenv("ADCORE_ALLOW_DOWNLOADS", "0")
    assert settings().allow_downloads is False
    monkeypatch.setenv("ADCORE_ALLOW_DOWNLOADS", "1")
    assert settings().allow_downloads is True
