"""A model that a file tells to fail: in which process of a training, at which step, and how."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adcore
import torch
from adcore.maps import upsample
from adcore.model import AnomalyModel, Batch, Optimization, Prediction, Update
from adcore.training.plan import Plan
from torch import Tensor


class Disturbed(AnomalyModel):
    """The distance to a colour that it learns. `orders` is a file: "killed 1 3" kills process 1 at step 3.

    Each process leaves a file `pid-...` beside it, while there are orders.
    """

    divisible = True

    def __init__(self, orders: str = "") -> None:
        super().__init__()
        self.orders = Path(orders)
        self.mean = torch.nn.Parameter(torch.rand(3))

    def distance(self, images: Tensor) -> Tensor:
        return (images - self.mean[:, None, None]).square().mean(1)

    def training_step(self, batch: Batch, step: int) -> Iterator[Update]:
        loss = self.distance(batch.images).mean()
        if self.orders.is_file():
            self.orders.with_name(f"pid-{os.getpid()}").touch()
            fault, rank, at = self.orders.read_text().split()
            if step == int(at) and rank in ("all", str(batch.processes.rank)):
                loss = self.disturb(fault, loss)
        yield Update(loss)

    def disturb(self, fault: str, loss: Tensor) -> Tensor:
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
        if fault == "raises":
            raise ValueError("the gear is broken")
        return loss * float("nan") if fault == "nan" else loss

    def configure_optimizers(self, plan: Plan) -> dict[str, Optimization]:
        return {"main": plan.optimization(self.parameters(), "sgd", learning_rate=0.1)}

    def forward(self, images: Tensor) -> Prediction:
        anomaly_map = upsample(self.distance(images), images.shape[-2:])
        return Prediction(anomaly_map.flatten(1).amax(1), anomaly_map)


def train(data: Path, folder: Path, **settings: Any) -> Any:
    """Train on the category "part" below `data`, by the orders in folder/orders, into folder/run."""
    values = {"orders": str(folder / "orders"), "image_size": 32, "batch_size": 4, "epochs": 2, "checkpoint_seconds": 0}
    return adcore.train(f"mvtec:{data}", "part", Disturbed, out=folder / "run", device="cpu", **{**values, **settings})
