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


WRONG = [
    ("seed", '"x"', "a whole number from 0 to 4294967295"),
    ("seed", "true", "a whole number from 0 to 4294967295"),
    ("seed", "-1", "a whole number from 0 to 4294967295"),
    ("seed", "1.5", "a whole number from 0 to 4294967295"),
    ("device", "5", "auto, cpu, cuda"),
    ("allow_downloads", '"maybe"', "true or false"),
    ("dataset_dir", "5", "a folder"),
    ("backbone_dir", '""', "a folder"),
    ("output_dir", '["a"]', "a folder"),
    ("max_image_pixels", "0", "a whole number from 1000000"),
    ("max_image_pixels", "1e8", "a whole number from 1000000"),
]


@pytest.mark.parametrize(("key", "value", "accepted"), WRONG)
def test_a_value_of_a_wrong_type_in_the_file_is_one_line(key, value, accepted, tmp_path, monkeypatch) -> None:
    (tmp_path / "adcore.toml").write_text(f"{key} = {value}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        settings()
    for words in (str(tmp_path / "adcore.toml"), f"{key} must be {accepted}"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("seed", "x"), ("seed", "-1"), ("allow_downloads", "maybe")])
def test_a_value_of_a_wrong_type_in_the_environment_names_the_variable(key, value, monkeypatch) -> None:
    monkeypatch.setenv(f"ADCORE_{key.upper()}", value)
    with pytest.raises(ConfigError, match=f"ADCORE_{key.upper()} must be .*, not '{value}'"):
        settings()


def test_set_globals_checks_types_and_changes_nothing_then() -> None:
    with pytest.raises(ConfigError, match="set_globals: allow_downloads must be true or false, not 'maybe'"):
        set_globals(device="cpu", allow_downloads="maybe")
    assert settings().device == "auto"
    set_globals(dataset_dir="x")
    assert set_globals(dataset_dir=None).dataset_dir is None


def test_downloads_are_off_unless_asked_for(monkeypatch) -> None:
    assert settings().allow_downloads is False
    monkeypatch.setenv("ADCORE_ALLOW_DOWNLOADS", "0")
    assert settings().allow_downloads is False
    monkeypatch.setenv("ADCORE_ALLOW_DOWNLOADS", "1")
    assert settings().allow_downloads is True
