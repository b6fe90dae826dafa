"""The trainer beside a bare loop with the same model and batches: `hatch run bench -k trainer -s`. Bar: 1.03."""

from __future__ import annotations

import time

import torch
from adcore.registry import create_model
from adcore.testing import tiny_batches
from adcore.training.plan import Plan
from adcore.training.trainer import Trainer

STEPS, ROUNDS, BATCH, SIZE = 6, 5, 4, 128


def bare_loop(batches: list) -> float:
    """Seconds a step of the least that a training loop can do."""
    model = create_model("stfpm-resnet18", weights="random").train()
    plan = Plan(steps_per_epoch=len(batches))
    optimizer = model.configure_optimizers(plan)["main"].optimizer
    started = time.perf_counter()
    for step, batch in enumerate(batches):
        for update in model.training_step(batch, step):
            optimizer.zero_grad(set_to_none=True)
            update.loss.backward()
            optimizer.step()
    return (time.perf_counter() - started) / len(batches)


def trainer_loop(batches: list) -> float:
    """Seconds a step of the trainer, its start and end included."""
    model = create_model("stfpm-resnet18", weights="random")
    trainer = Trainer(model, Plan(), batches, num_images=BATCH * STEPS)
    return trainer.run().seconds / len(batches)


def test_trainer_overhead(benchmark) -> None:
    torch.manual_seed(0)
    batches = tiny_batches(BATCH * STEPS, (SIZE, SIZE), BATCH)
    bare_loop(batches[:2]), trainer_loop(batches[:2])
    pairs = [(bare_loop(batches), trainer_loop(batches)) for _ in range(ROUNDS)]
    bare, ours = (min(times) for times in zip(*pairs, strict=True))
    print(f"\nbare loop {1000 * bare:.1f} ms a step, trainer {1000 * ours:.1f} ms, ratio {ours / bare:.3f}")
    benchmark.extra_info["ratio"] = ours / bare
    benchmark.pedantic(trainer_loop, args=(batches,), rounds=1)
    assert ours / bare <= 1.03
