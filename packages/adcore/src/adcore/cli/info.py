"""`adcore info NAME`: what a model, a dataset layout, a trained or an exported model is, and every setting that it takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from adcore.cards import DatasetCard, ModelCard
from adcore.plugins import load_plugins
from adcore.registry import backbone_card, dataset_card, model_card, model_class, model_origin, reader_class

COST = {"light": "a CPU is enough", "medium": "trains on a CPU, faster on a GPU", "heavy": "train it on a GPU"}


@click.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Machine readable.")
def command(name: str, as_json: bool) -> None:
    """Show a model's idea, defaults, settings and needs, a dataset's layout and options, or a MODEL.safetensors or .onnx."""
    if name.endswith((".onnx", ".safetensors")):
        (_show_exported if name.endswith(".onnx") else _show_trained)(Path(name), as_json)
        return
    known = load_plugins().aliases
    if name in known[DatasetCard] and name not in known[ModelCard]:
        _show_dataset(dataset_card(name), as_json)
    else:
        _show_model(model_card(name), as_json)


def _show_model(card: ModelCard, as_json: bool) -> None:
    from adcore.config import describe_config

    origin = model_origin(card.name)
    rows = describe_config(card, model_class(card))
    if as_json:
        click.echo(
            json.dumps({**asdict(card), "package": str(origin), "settings": _dicts(rows)}, indent=2, default=str)
        )
        return
    facts = {
        "idea": card.summary,
        "paper": card.paper,
        "family": f"{card.family} ({origin})",
        "also called": ", ".join(card.aliases),
        "MVTec AD": f"{card.published} (image / pixel AUROC %, as published)" if card.published else "",
        "input": f"{card.channels} channels"
        + (f", sides multiples of {card.size_multiple}" * (card.size_multiple > 1)),
        "cost": f"{card.cost} ({COST[card.cost]})",
        "export": f"no: {card.not_exportable}" if card.not_exportable else "onnx, openvino, triton",
        "score": f"of the whole image with --roi, too: {card.whole_image}" if card.whole_image else "",
        "tiles": f"no: {card.no_tiles}" if card.no_tiles else "of large images, with --set tile=SIDE",
        "licence": "; ".join(_licences(card)),
        "weights": ", ".join(card.required_backbones),
        "needs": ", ".join(card.needs),
        "training": f"{card.training}, {card.epochs} epochs, batch {card.batch_size}, images {card.image_size}"
        + (f" cropped to {card.crop_size}" if card.crop_size else "")
        + f", normalization {card.normalization}"
        + (", labelled anomalies" if card.supervised else "")
        + (", unlabelled images" if card.unlabelled else ""),
    }
    click.echo(f"{card.name}: {card.title} ({card.year})")
    _show_facts(facts)
    click.echo("  settings (--set KEY=VALUE):")
    for key, kind, default, meaning in rows:
        click.echo(f"    {key} = {default!r}  [{kind}] {meaning}")
    click.echo(
        "    and of training: image_size, crop_size, region, tile, normalization, resize, batch_size, learning_rate, ..."
    )


def _licences(card: ModelCard) -> list[str]:
    code = [f"code {card.licence}"] if card.licence else []
    return code + [f"weights of {name}: {backbone_card(name).licence}" for name in card.required_backbones]


def _show_facts(facts: dict[str, str]) -> None:
    for key, value in facts.items():
        if value:
            click.echo(f"  {key + ':':13}{value}")


def _show_trained(path: Path, as_json: bool) -> None:
    from adcore.artifact import read_header

    header = read_header(path)
    if as_json:
        click.echo(json.dumps(header, indent=2))
        return
    training, preprocess, threshold = header["training"], header["preprocess"], header["calibration"].get("threshold")
    categories, band = header["calibration"].get("categories", {}), header["calibration"].get("review_band")
    counts = training.get("counts", {}).get("train", {})
    shown = "none"
    if threshold:
        where = f", chosen on {threshold['source']} images" if threshold["source"] else ""
        shown = f"{threshold['value']:.6g} ({threshold['method']}{where})"
    weights = (f"{b['backbone']} ({'inside' if b['inside'] else b['source']})" for b in header["backbones"])
    members, data = training.get("members"), f"{training.get('dataset')} {training.get('category')}"
    told = {"trained on": f"{data}, {counts.get('normal', '?')} normal images, seed {training.get('seed')}"}
    if added := training.get("added_images"):
        told["trained on"] += f", {added} normal images added afterwards"
    if members:
        told = {"members": ", ".join(members), "combined on": data}
    click.echo(f"{path}: trained by adcore {header['versions'].get('adcore', '?')}")
    _show_facts(
        {
            "model": f"{header['model']} ({header['package']} {header['package_version']})",
            **told,
            "weights": ", ".join(weights),
            "input": ", ".join(f"{key} {_short(value)}" for key, value in preprocess.items() if value is not None),
            "threshold": shown,
            "of categories": ", ".join(f"{name} {one['value']:.6g}" for name, one in categories.items()),
            "review band": f"good below {band[0]:.6g}, bad from {band[1]:.6g} on" if band else "",
            "note": (threshold or {}).get("note", ""),
            "settings": ", ".join(f"{key}={value}" for key, value in header["config"].items() if key != "members"),
        }
    )


def _short(value: Any) -> Any:
    """A stored region of interest by its size."""
    return f"of {value['size'][1]}x{value['size'][0]} px" if isinstance(value, dict) else value


def _show_exported(path: Path, as_json: bool) -> None:
    from adcore_runtime.onnx_file import describe

    from adcore.cli.common import check_lines

    description = describe(path)
    record, calibration = description.record, description.calibration
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    card, preprocess = record.get("card", {}), description.preprocess
    size = " x ".join(map(str, description.camera or preprocess.output_size))
    kind = "uint8 frames of" if description.camera else "float32 images, preprocessed, of"
    facts = {
        "model": f"{card.get('name')} ({card.get('package')} {card.get('version')})",
        "made from": f"a model file with sha256 {record.get('artifact_sha256', '?')}",
        "made with": ", ".join(f"{name} {number}" for name, number in record.get("versions", {}).items()),
        "input": f"{record.get('batch') or 'any number of'} {kind} {size} px, {preprocess.channels} channels",
        "threshold": "none" if calibration.threshold is None else f"{calibration.threshold:.6g}",
    }
    click.echo(f"{path}: exported by adcore")
    _show_facts(facts)
    measured = record.get("check")
    if measured:
        click.echo(f"  compared with the model on {measured['images']} images ({measured['source']}):")
        for line in check_lines(measured):
            click.echo(f"    {line}")


def _show_dataset(card: DatasetCard, as_json: bool) -> None:
    from adcore.config import describe_fields, option_fields

    rows, origin = (
        describe_fields(option_fields(reader_class(card.name))),
        load_plugins().cards[DatasetCard][card.name][1],
    )
    if as_json:
        click.echo(json.dumps({**asdict(card), "package": str(origin), "options": _dicts(rows)}, indent=2, default=str))
        return
    click.echo(f"{card.name}: {card.title} ({origin})\n  layout:      {card.layout}")
    if card.aliases:
        click.echo(f"  also called: {', '.join(card.aliases)}")
    click.echo("  options (--data-option KEY=VALUE):" if rows else "  options:     none")
    for key, kind, default, meaning in rows:
        click.echo(f"    {key} = {default!r}  [{kind}] {meaning}")


def _dicts(rows: list[tuple[str, str, object, str]]) -> list[dict[str, object]]:
    return [dict(zip(("key", "type", "default", "meaning"), row, strict=True)) for row in rows]
