"""DRAEM and SSPCAB: what the subnetworks see, what the losses reward, and that a short training finds a synthetic anomaly."""

import pytest
import torch
import torch.nn.functional as F
from adcore.data.textures import ProceduralTextures
from adcore.errors import ConfigError
from adcore.model import Batch
from adcore.registry import create_model
from adcore.training.device import seed_everything
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer
from adm_recon.losses import focal_loss, ssim_map
from adm_recon.sspcab import SSPCAB
from adm_recon.synthetic import Blend, texture_anomalies
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.classification import binary_auroc

SMALL = {"reconstructive_width": 4, "discriminative_width": 4}


def batches(images, size=4):
    labels, masks = torch.zeros(len(images)).long(), torch.zeros(len(images), *images.shape[-2:]).bool()
    parts = zip(images.split(size), labels.split(size), masks.split(size), strict=True)
    return [Batch(image, label, mask, label.bool(), ["memory"]) for image, label, mask in parts]


def fit(model, images, epochs=1, **plan):
    loader = batches(images)
    return Trainer(model, Plan(epochs=epochs, batch_size=4, **plan), loader, len(images)).run()


def test_sspcab_never_sees_the_position_it_predicts():
    torch.manual_seed(0)
    block, x = SSPCAB(16), torch.rand(1, 16, 9, 9)
    mean = x.mean((2, 3))  # the attention is global: compare what the corners collect, before it
    block.squeeze.weight.data.zero_()
    changed = x.clone()
    changed[..., 4, 4] += 10
    moved = (block(changed) - block(x)).abs().sum(1)[0] > 1e-6
    corners = torch.zeros(9, 9, dtype=torch.bool)
    corners[[2, 2, 6, 6], [2, 6, 2, 6]] = True
    assert mean.shape == (1, 16)
    assert torch.equal(
        moved, corners
    )  # the four positions that have (4, 4) in a corner of their field, not (4, 4) itself


def test_ssim_of_equal_images_is_one_and_falls_with_noise():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 32, 32)
    assert torch.allclose(ssim_map(image, image), torch.ones(()), atol=1e-5)
    slight, strong = (ssim_map(image, (image + s * torch.randn_like(image)).clamp(0, 1)).mean() for s in (0.05, 0.5))
    assert 1 > slight > strong


def test_ssim_by_the_papers_formula():
    """Moments in a Gaussian window of 11 x 11 with sigma 1.5, reflected at the border (Wang et al. 2004)."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 3, 40, 48, dtype=torch.double, generator=generator) for _ in range(2))

    def mean(values):
        return torch.from_numpy(gaussian_filter(values.numpy(), 1.5, radius=5, mode="mirror", axes=(2, 3)))

    a, b = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - a**2, mean(y * y) - b**2, mean(x * y) - a * b
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * a * b + c1) * (2 * cov + c2) / ((a**2 + b**2 + c1) * (var_x + var_y + c2))
    assert torch.allclose(ssim_map(x, y), expected, atol=1e-9)
    assert torch.allclose(ssim_map(x.float(), y.float()), expected.float(), atol=1e-4)


def test_focal_loss_by_hand_and_symmetric_between_the_classes():
    logits = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    p = F.softmax(logits, 1)[0, 1, 0, 0]
    assert focal_loss(logits, torch.ones(1, 1, 1)) == pytest.approx(float(-((1 - p) ** 2) * p.log()), rel=1e-5)
    assert focal_loss(logits, torch.ones(1, 1, 1)) == pytest.approx(
        float(focal_loss(logits.flip(1), torch.zeros(1, 1, 1)))
    )
    assert focal_loss(logits, torch.zeros(1, 1, 1)) > 0  # normal pixels count: a mask that is hot everywhere must cost


@pytest.mark.slow
def test_short_training_learns_to_segment_synthetic_anomalies():
    seed_everything(0)
    model = create_model("draem", **SMALL)
    y = torch.linspace(0, 20, 64)
    images = (0.5 + 0.2 * torch.sin(y)[None, None, :, None]).expand(16, 3, 64, 64) + 0.02 * torch.randn(16, 3, 64, 64)
    summary = fit(model, images, epochs=30, learning_rate=2e-3)
    assert summary.history[-1]["loss"] < 0.6 * summary.history[0]["loss"]
    damaged, mask = texture_anomalies(images, ProceduralTextures(), Blend((0.5, 1.0), probability=1.0))
    with torch.no_grad():
        clean, defective = model(images), model(damaged)
    assert clean.anomaly_map.shape == (16, 64, 64)
    assert ((defective.score > clean.score) | ~mask.flatten(1).any(1)).float().mean() > 0.8
    # of pixels; chance is 0.5, and rounding decides how far so few steps come: 0.63 to 0.86 on processors of different kinds
    assert binary_auroc(defective.anomaly_map, mask.long()) > 0.55


def test_the_rate_falls_at_the_papers_shares_of_the_epochs():
    plan = Plan(epochs=14, steps_per_epoch=1)
    main = create_model("draem", **SMALL).configure_optimizers(plan)["main"]
    rates = []
    for _ in range(plan.epochs):
        rates.append(main.optimizer.param_groups[0]["lr"])
        main.optimizer.step()
        main.scheduler.step()
    assert rates == pytest.approx([1e-4] * 8 + [1e-5] * 4 + [1e-6] * 2)  # 400 and 600 of 700


def test_a_gray_image_gets_gray_faults_and_a_coloured_one_coloured_anomalies():
    seed_everything(0)
    gray = torch.rand(4, 1, 64, 64).expand(-1, 3, -1, -1)
    images = torch.cat([gray, torch.rand(4, 3, 64, 64)])
    damaged, mask = texture_anomalies(images, ProceduralTextures(), Blend(probability=1.0))
    assert mask[:4].any()
    assert torch.equal(damaged[:4, :1].expand(-1, 3, -1, -1), damaged[:4])
    assert not torch.equal(damaged[:4], images[:4])
    changed = (damaged - images)[4:].movedim(1, 3)[mask[4:]]  # (n, 3)
    assert changed.std(1).mean() > 0.01
    outside = ~mask[:, None].expand_as(images)
    assert torch.equal(damaged[outside], images[outside])


def test_score_is_the_maximum_of_the_map_and_the_papers_window_smooths_it_first():
    torch.manual_seed(0)
    model = create_model("draem", **SMALL)
    maps = torch.zeros(1, 64, 64)
    maps[0, 30, 30] = 1.0
    assert model.image_score(maps, None) == 1.0
    paper = create_model("draem", score_window=21, **SMALL)
    assert paper.image_score(maps, None) == pytest.approx(1 / 21**2)


def test_wrong_image_size_is_one_clear_line():
    model = create_model("draem", **SMALL)
    model.fitted = True
    with pytest.raises(ConfigError, match=r"multiples of 32, got 48 x 64; try 64 x 64"):
        model.eval()(torch.rand(1, 3, 48, 64))


def test_missing_texture_folder_is_named_before_the_first_step(tmp_path):
    from adcore.errors import DataError

    model = create_model("draem", textures=str(tmp_path / "nowhere"), **SMALL)
    with pytest.raises(DataError, match="nowhere"):
        fit(model, torch.rand(4, 3, 32, 32))


def test_procedural_textures_are_said_aloud(caplog):
    fit(create_model("draem", **SMALL), torch.rand(4, 3, 32, 32))
    assert "procedural" in caplog.text
