"""Pages that work without a server: a template with styles, scripts, texts and data placed into one file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

DATA = '<script type="application/json" id="data">'
FOLDER = files("adcore.evaluation") / "web"


def read(name: str) -> str:
    """A file of the folder `web`."""
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def texts() -> dict[str, dict[str, str]]:
    """All texts of the pages: key -> language ("en", "ko") -> text."""
    return json.loads(read("texts.json"))


def in_script(value: Any) -> str:
    """`value` as JSON that no text in it can end: `<` is escaped. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def render(template: str, scripts: Sequence[str], data: Any, **values: Any) -> str:
    """The page: `template` with `values`, the files `scripts` in order, and `data`, which scripts find as DATA.

    Only these scripts run: the page's security policy names their digests and allows nothing from outside.
    """
    sources = [read(name) for name in scripts]
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in sources]
    page = _templates().get_template(template)
    return page.render(
        style=read("page.css"),
        scripts=sources,
        script_policy=" ".join(f"'sha256-{one}'" for one in digests) or "'none'",
        texts_json=in_script(texts()),
        data_json=in_script(data),
        **values,
    )


@cache
def _templates() -> Environment:
    """The templates of the folder `web`, each compiled once a process."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number)
    environment.globals.update(texts=texts())
    return environment


def read_data(page: Path) -> Any:
    """What `render` was given as `data`; None where there is no such page."""
    if not page.is_file():
        return None
    _, found, rest = page.read_text(encoding="utf-8").partition(DATA)
    return json.loads(rest.partition("</script>")[0]) if found else None


def number(value: float, digits: int = 4) -> str:
    """`digits` significant digits; no exponent for common magnitudes."""
    return f"{value:,.0f}" if 10**digits <= abs(value) < 1e9 else f"{value:.{digits}g}"
