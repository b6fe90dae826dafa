"""Every model that users were promised is installed, listed with what they choose by, and held to the contract."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
from adcore.cards import load_target
from adcore.registry import list_models, model_card

ROOT = Path(__file__).parent.parent

PROMISED = """
padim padim-resnet18 padim-efficientnet-lite0
patchcore patchcore-resnet18 patchcore-efficientnet-lite0
dfkde dfm dfm-nll cfa cfa-resnet18
cflow-resnet18 cflow-resnet50
fastflow fastflow-resnet18 fastflow-resnet50 fastflow-cait fastflow-deit
csflow
uflow uflow-resnet18 uflow-mcait
stfpm stfpm-resnet18
fre
reverse-distillation reverse-distillation-resnet18
efficientad-small efficientad-medium
autoencoder ganomaly
draem draem-sspcab draem-sevnet draem-sevnet-multiscale
dsr
dinomaly-small-224 dinomaly-small-392 dinomaly-small-448
dinomaly-base-224 dinomaly-base-392 dinomaly-base-448
dinomaly-large-224 dinomaly-large-392 dinomaly-large-448
dinomaly-baseline dinomaly-reg-small dinomaly-reg-base dinomaly-reg-large
dinomaly-gem dinomaly-focal dinomaly-aux dinomaly-scale
supersimplenet supersimplenet-supervised
uninet
softpatch subspace-ad anomaly-dino rad inp-former dinomaly2 musc superadd
""".split()  # noqa: SIM905

ALIASES = {
    "cflow": "cflow-resnet18",
    "fastflow-wide-resnet50": "fastflow",
    "efficientad-s": "efficientad-small",
    "efficientad": "efficientad-medium",
    "dinomaly": "dinomaly-base-392",
}

NEEDS_NOTHING = {"autoencoder", "ganomaly", "draem-sevnet", "draem-sevnet-multiscale"}  # trained from the images alone


ALL_THREE, UPPER_TWO = ("layer1", "layer2", "layer3"), ("layer2", "layer3")
LAYERS = {  # of the backbone, as the papers have them
    **dict.fromkeys(("padim", "cfa", "fastflow", "uflow", "stfpm", "reverse-distillation", "uninet"), ALL_THREE),
    **dict.fromkeys(("patchcore", "softpatch", "cflow-resnet18", "supersimplenet"), UPPER_TWO),
    "dfkde": "layer4",
    "dfm": "layer3",
    "fre": "layer3",
    "csflow": "blocks.5",
}


def names() -> set[str]:
    return {card.name for card in list_models()}


def test_all_of_them_are_installed() -> None:
    assert len(PROMISED) == len(set(PROMISED)) == 64
    assert set(PROMISED) - names() == set()


def test_whatever_else_is_installed_runs_on_the_small_backbone() -> None:
    more = {name for name in names() - set(PROMISED) if not name.startswith("toy")}
    assert {name for name in more if not name.endswith("-efficientnet-lite0")} == set()
    assert all(model_card(name).required_backbones == ("tf_efficientnet_lite0",) for name in more)


def test_the_cards_say_what_a_user_has_to_know(run_cli) -> None:
    cards = {card.name: card for card in list_models() if card.name in PROMISED}
    one_pass = {name for name, card in cards.items() if card.training == "one-pass"}
    assert {cards[name].title for name in one_pass} == {
        "PaDiM",
        "PatchCore",
        "DFKDE",
        "DFM",
        "SoftPatch",
        "SubspaceAD",
        "AnomalyDINO",
        "RAD",
        "SuperADD",
    }
    assert {card.licence for card in cards.values()} == {"Apache-2.0"}
    out = run_cli("info", "dinomaly-small-224")[1]
    assert "input:       3 channels, sides multiples of 14" in out
    assert "licence:     code Apache-2.0; weights of dinov2_vit_small_14: Apache-2.0" in out
    said = json.loads(run_cli("info", "padim", "--json")[1])
    assert (said["training"], said["cost"], said["size_multiple"], said["unlabelled"]) == (
        "one-pass",
        "light",
        1,
        False,
    )


def test_aliases() -> None:
    assert {alias: model_card(alias).name for alias in ALIASES} == ALIASES


@pytest.mark.parametrize("name", LAYERS)
def test_the_default_layers_are_those_of_the_paper(name) -> None:
    card = model_card(name)
    parameters = inspect.signature(load_target(card.target)).parameters
    key = "layers" if "layers" in parameters else "layer"
    assert card.config.get(key, parameters[key].default) == LAYERS[name]


def test_the_listing_says_what_a_user_chooses_by(run_cli) -> None:
    code, out, err = run_cli("list-models")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    for name in PROMISED:
        card, line = model_card(name), lines[name]
        assert 2010 <= card.year <= 2026
        needs = [*card.required_backbones, *card.needs]
        assert bool(needs) == (name not in NEEDS_NOTHING)
        for said in (card.family, str(card.year), card.title, card.paper, *needs):
            assert said
            assert said in line, f"{name}: {said!r}"


def test_the_machine_readable_listing_says_it_too(run_cli) -> None:
    entries = {entry["name"]: entry for entry in json.loads(run_cli("list-models", "--json")[1])}
    for name in PROMISED:
        card, entry = model_card(name), entries[name]
        assert (entry["family"], entry["year"], entry["paper"]) == (card.family, card.year, card.paper)
        assert (tuple(entry["required_backbones"]), tuple(entry["needs"])) == (card.required_backbones, card.needs)


@pytest.mark.parametrize("package", sorted(path.name for path in (ROOT / "packages").glob("adm-*")))
def test_every_card_runs_the_conformance_kit(package) -> None:
    source = (ROOT / "packages" / package / "tests" / "test_conformance.py").read_text(encoding="utf-8")
    checked = set(re.findall(r'^    model = "([^"]+)"$', source, re.MULTILINE))
    module = package.replace("-", "_")
    assert checked == {card.name for card in list_models() if card.target.startswith(f"{module}.")}


def test_on_a_terminal_every_model_has_one_line(run_cli, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    lines = run_cli("list-models")[1].splitlines()
    assert len(lines) == len(names()) + 1
    assert max(map(len, lines)) == 70
