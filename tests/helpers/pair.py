"""Trains tiny models alone, or in two processes that share each batch, so that a test can compare what they learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import warm
from adcore.data.dataset import ImageDataset, Loader, make_loader
from adcore.model import AnomalyModel, Batch
from adcore.prepared import prepare_run
from adcore.registry import create_model
from adcore.request import DataChoice, choose_model
from adcore.several import joined
from adcore.training.device import seed_everything
from adcore.training.processes import Processes
from adcore.training.trainer import Trainer
from torch import Tensor

CPU = torch.device("cpu")
Cases = Mapping[str, tuple[str, dict[str, Any]]]  # name -> (model, settings)


class DoubleLoader:
    """The batches of a Loader in double precision: rounding, which Adam and a large learning rate magnify, decides nothing."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        return (replace(batch, images=batch.images.double()) for batch in self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def fit(data: Path, model: str, values: dict[str, Any], processes: Processes, double: bool = True) -> AnomalyModel:
    """Train `model` on the category "part" below `data`, as the first or another of `processes`."""
    choice = choose_model(model, {"image_size": 64, "batch_size": 4, **values})
    run = prepare_run(choice, DataChoice("mvtec", data, "part"))
    seed_everything(choice.plan.seed)
    made = create_model(choice.card.name, **choice.config)
    dataset = ImageDataset(run.images("train"), run.reader, choice.preprocess)
    loader = make_loader(dataset, choice.plan.batch_size, shuffle=True, seed=choice.plan.seed)
    train_loader = DoubleLoader(loader) if double else loader
    trainer = Trainer(made.double() if double else made, choice.plan, train_loader, len(dataset), processes=processes)
    trainer.run()
    return made


def states_of_two(data: Path, cases: Cases, folder: Path, double: bool = True) -> dict[str, dict[str, Tensor]]:
    """The state that each case has learned in two processes."""
    file = folder / "states.pt"
    ranks = [
        warm.processes.Process(target=_train, args=(rank, data, dict(cases), folder / "meeting", file, double))
        for rank in (0, 1)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    return torch.load(file)


def _train(rank: int, data: Path, cases: Cases, meeting: Path, file: Path, double: bool) -> None:
    torch.set_num_threads(1)
    with joined(Processes(rank, 2), CPU, dist.FileStore(str(meeting), 2)) as processes:
        states = {
            name: fit(data, model, values, processes, double).state_dict() for name, (model, values) in cases.items()
        }
    if processes.first:
        torch.save(states, file)
