"""The model tables in the READMEs are what the cards say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("model_table", ROOT / "tools" / "model_table.py")
model_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(model_table)


@pytest.mark.parametrize("page", model_table.PAGES)
def test_the_readmes_table_is_generated_from_the_cards(page) -> None:
    expected = model_table.filled(page)
    assert "`patchcore`" in expected
    assert (ROOT / page).read_text(encoding="utf-8") == expected, "run: python tools/model_table.py"
