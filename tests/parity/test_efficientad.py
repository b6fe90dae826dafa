"""EfficientAD against anomalib's answers: random augmentation and dropout are off on both sides."""

import pytest
import torch
from adcore.model import Batch, Fit
from adcore.training.plan import Plan
from adm_distill import efficientad
from adm_distill.efficientad import EfficientAD

RENAMES = [
    *((rf"^autoencoder\.encoder\.{i}\.", f"autoencoder.encoder.enconv{i + 1}.") for i in range(6)),
    *((rf"^autoencoder\.decoder\.{i}\.", f"autoencoder.decoder.deconv{i + 1}.") for i in range(8)),
    (r"^teacher_(mean|std)$", r"mean_std.\1"),
    (r"^(q[ab]_)", r"quantiles.\1"),
]


@pytest.fixture(params=["small", pytest.param("medium", marks=pytest.mark.slow)])
def filled(request, golden):
    """Our model with the parameters of the golden file."""
    stored = golden(f"efficientad_{request.param}")
    model = EfficientAD(size=request.param, teacher="random")
    stored.fill_module(model, RENAMES)
    model.fitted = True
    return model.eval(), stored


def batch_of(images):
    masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    return Batch(images, masks[:, 0, 0].long(), masks, masks[:, 0, 0], ["x.png"] * len(images))


def test_maps_and_scores(filled):
    model, stored = filled
    with torch.no_grad():
        prediction = model(stored.input())
    stored.assert_map_close(prediction.anomaly_map)
    stored.assert_relative(prediction.score, "score")


def test_teacher_statistics_and_map_quantiles(filled):
    model, stored = filled
    batches = [batch_of(images) for images in stored.train_batches()]
    plan, silent = Plan(), lambda *_: None
    fit = Fit(plan, "cpu", len(batches), lambda: batches, lambda: batches, log=silent, progress=silent)
    model.on_fit_end(fit)  # first, since the filled teacher statistics are in force for the stored quantiles
    for name in ("qa_st", "qb_st", "qa_ae", "qb_ae"):
        stored.assert_relative(getattr(model, name).reshape(1), name)
    model.on_fit_start(fit)
    stored.assert_relative(model.teacher_mean.flatten(), "teacher_mean", tolerance=1e-3)  # some means are nearly 0
    stored.assert_relative(model.teacher_std.flatten(), "teacher_std")


def test_losses_of_the_first_steps(filled, steps, monkeypatch):
    model, stored = filled
    stored = stored.first(steps)
    monkeypatch.setattr(efficientad, "jitter", lambda images: images)
    model.autoencoder.dropout.p = 0.0
    recipe = stored.facts["penalty"]
    penalties = [stored.fill.images(name, tuple(recipe["shape"]), recipe["unit"]) for name in recipe["names"]]
    model.train()
    plan = Plan(steps_per_epoch=1000)
    optimizer = model.configure_optimizers(plan)["main"].optimizer
    wanted = stored.facts["optimizer"]
    assert type(optimizer).__name__ == wanted["class"]
    assert [optimizer.defaults[key] for key in ("lr", "weight_decay")] == [wanted["lr"], wanted["weight_decay"]]
    losses, terms = [], []
    for step, images in enumerate(stored.train_batches()):
        model._penalty_batch = lambda _, step=step: [efficientad.normalized(penalties[step])]
        for update in model.training_step(batch_of(images), step):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            losses.append(update.loss.detach().double())
            terms.append(torch.stack([update.logs[key] for key in ("student", "autoencoder", "agreement")]))
    stored.assert_relative(torch.stack(losses), "losses")
    stored.assert_relative(torch.stack(terms), "loss_terms")
    with torch.no_grad():
        stored.assert_map_close(model.eval()(stored.input()).anomaly_map, "map_after")
