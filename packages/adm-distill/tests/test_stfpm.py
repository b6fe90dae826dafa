"""STFPM: distances by hand, what trains, and that it finds an anomaly after a short fit."""

import torch
from adcore.model import Batch
from adcore.registry import create_model
from adcore.testing import fit_tiny, tiny_batches
from adcore.training.device import seed_everything
from adm_distill.stfpm import feature_distance


def test_distance_ignores_length_and_counts_angles():
    teacher = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    cases = {(5.0, 0.0): 0.0, (0.0, 3.0): 1.0, (-2.0, 0.0): 2.0}
    for student, expected in cases.items():
        assert feature_distance(teacher, torch.tensor(student).view(1, 2, 1, 1)).item() == expected


def test_student_starts_different_from_a_random_teacher_and_follows_the_seed():
    def student(seed):
        seed_everything(seed)
        model = create_model("stfpm-resnet18", weights="random")
        return model.teacher.net.conv1.weight, model.student.net.conv1.weight

    (teacher, first), (teacher_again, again), (_, other) = student(0), student(0), student(1)
    assert torch.equal(teacher, teacher_again)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, teacher)


def test_loss_is_the_mean_over_images():
    model = create_model("stfpm-resnet18", weights="random").eval()
    [batch] = tiny_batches(2, (64, 64), 2)

    def loss(*rows):
        index = torch.tensor(rows)
        picked = (batch.images, batch.labels, batch.masks, batch.has_mask)
        [update] = model.training_step(Batch(*(t[index] for t in picked), list(batch.paths)), 0)
        return update.loss

    torch.testing.assert_close(loss(0, 1), (loss(0) + loss(1)) / 2)


def test_only_the_student_learns_and_the_fault_stands_out():
    model, summary, choice = fit_tiny(
        "stfpm-resnet18", images=8, epochs=6, weights="random", layers=("layer1", "layer2")
    )
    fresh = create_model("stfpm-resnet18", weights="random", layers=("layer1", "layer2"))
    trained, untrained = model.teacher.state_dict(), fresh.teacher.state_dict()
    assert all(torch.equal(trained[key], untrained[key]) for key in trained)
    assert summary.history[-1]["loss"] < 0.5 * summary.history[0]["loss"]
    [batch] = tiny_batches(4, choice.preprocess.output_size, 4, anomalous=True, seed=3)
    with torch.no_grad():
        prediction = model(batch.images)
    assert prediction.score[1::2].min() > prediction.score[0::2].max()
    peaks = prediction.anomaly_map[1::2].flatten(1).argmax(1)
    assert batch.masks[1::2].flatten(1).gather(1, peaks[:, None]).all()
