"""condition.json: the settings as written by the user, and the checked request that the run's process reads."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic_core import to_jsonable_python

from adcore.errors import ConfigError
from adcore.experiments.conditions import Condition, ConditionConfig
from adcore.files import write_json
from adcore.preprocess import Preprocess
from adcore.registry import model_card
from adcore.request import ModelChoice
from adcore.training.plan import Plan

FILE = "condition.json"


def write_condition(folder: Path, condition: Condition) -> None:
    """Write FILE into `folder`: all that `read_condition` needs to give the same condition, without another check."""
    choice = condition.choice
    checked = {
        "settings": condition.config.model_dump(),
        "model": choice.card.name,
        "config": choice.config,
        "plan": choice.plan.model_dump(),
        "preprocess": choice.preprocess.to_dict(),
        "notes": choice.notes,
        "targets": condition.targets,
    }
    record = {
        "name": condition.name,
        "description": condition.description,
        "config": {**condition.raw, "dataset_root": condition.config.dataset_root},
        "checked": checked,
    }
    write_json(folder / FILE, to_jsonable_python(record))


def read_condition(folder: Path) -> Condition:
    """The condition that `write_condition` wrote; ConfigError for a file that is not of this form."""
    file = folder / FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        checked = record["checked"]
        choice = ModelChoice(
            model_card(checked["model"]),
            dict(checked["config"]),
            Plan.model_validate(checked["plan"]),
            Preprocess.from_dict(checked["preprocess"]),
            tuple(checked["notes"]),
        )
        settings, targets = ConditionConfig.model_validate(checked["settings"]), tuple(checked["targets"])
        return Condition(record["name"], record["description"], record["config"], settings, choice, targets)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise ConfigError(f"{file} is not what adcore writes ({reason}); start the session again") from None
