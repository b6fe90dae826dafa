"""`adcore bundle --models a,b --out DIR`, `adcore bundle --runtime MODEL.onnx --out DIR` and `adcore bundle verify DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group("bundle", invoke_without_command=True)
@click.option("--models", help="Names of installed models, separated by commas.")
@click.option(
    "--runtime", type=click.Path(path_type=Path), help="Instead: an exported ONNX model, to run without torch."
)
@click.option("--out", type=click.Path(path_type=Path), help="Output folder; must not exist.")
@click.option("--platform", help="Target platform, as pip names it: win_amd64, manylinux_2_28_x86_64, ...")
@click.option("--python-version", help="Python version of the target machine: 3.11, ...")
@click.option("--data", multiple=True, type=click.Path(path_type=Path), help="A folder of images to include.")
@click.option("--no-weights", is_flag=True, help="Do not include pretrained weights.")
@click.pass_context
def command(
    context: click.Context,
    models: str | None,
    runtime: Path | None,
    out: Path | None,
    platform: str | None,
    python_version: str | None,
    data: tuple[Path, ...],
    no_weights: bool,
) -> None:
    """Collect wheels and weights of models for an offline machine; this command uses the package index."""
    if context.invoked_subcommand:
        return
    if bool(models) == bool(runtime) or not out:
        raise click.UsageError("give --out and one of --models and --runtime (or: adcore bundle verify DIR)")
    if runtime and (data or no_weights):
        raise click.UsageError("--data and --no-weights go with --models, not with --runtime")
    from adcore.bundle import make_bundle, make_runtime_bundle
    from adcore.bundle_manifest import MANIFEST
    from adcore.files import sha256_file

    if runtime:
        folder = make_runtime_bundle(runtime, out, platform, python_version)
    else:
        names = [name.strip() for name in (models or "").split(",") if name.strip()]
        folder = make_bundle(names, out, platform, python_version, data, not no_weights)
    wheels = list((folder / "wheels").iterdir())
    size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    click.echo(
        f"{folder}: {len(wheels)} wheels, {size:.0f} MB; sha256 of its manifest: {sha256_file(folder / MANIFEST)}"
    )
    click.echo("Copy the folder to the target machine and run install.sh (in PowerShell: install.ps1).")
    click.echo("Verify it with: adcore bundle verify")


@command.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
def verify(folder: Path) -> None:
    """Check every file of the bundle FOLDER; exit 1 when one is missing, altered, not listed or a link."""
    from adcore.bundle_manifest import MANIFEST, verify_bundle
    from adcore.files import sha256_file

    problems = verify_bundle(folder)
    for problem in problems:
        click.echo(problem)
    if problems:
        sys.exit(1)
    click.echo(f"{folder}: every file is as listed; sha256 of its manifest: {sha256_file(folder / MANIFEST)}")
