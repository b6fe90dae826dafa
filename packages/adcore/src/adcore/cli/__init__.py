"""The command line: one file a command, imported when the command is used."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

import click

from adcore import __version__
from adcore.errors import AdcoreError, suggest

CLOSED_PIPE = 141  # the exit code of a program that SIGPIPE ends, as shells see it

COMMANDS = {  # name -> one line of help, so that --help imports no command
    "list-models": "List the installed models.",
    "list-datasets": "List the dataset layouts that can be read.",
    "list-backbones": "List the pretrained backbones, and where their weights are.",
    "info": "Show a model's idea, defaults, settings and needs, or a dataset's layout and options.",
    "doctor": "Check the installation: plugins, weights, devices.",
    "demo": "Train and evaluate on real photographs, without a download.",
    "train": "Train, evaluate and report.",
    "run": "Run experiments: the models, domains and seeds of a conditions file.",
    "analyze": "Print tables of a session, with transfer ratios and significance tests.",
    "compare": "Train several models on the same data and rank them.",
    "report": "Write one page that compares many runs: leaderboard, heat map, seeds, ROC curves.",
    "evaluate": "Evaluate a trained model on a dataset.",
    "ensemble": "Combine trained models into one.",
    "threshold": "Give a trained model another threshold, without training it again.",
    "update": "Add normal images to the memory bank of a trained model, as a new model.",
    "predict": "Predict an image or a folder with a trained model.",
    "drift": "Test whether new images are still like those of a model's calibration.",
    "export": "Write a trained model as ONNX, OpenVINO IR or for Triton, compared before it is written.",
    "serve": "Serve an exported model, with a page where operators see and review the images.",
    "backbones": "List, verify, download and package backbone weights.",
    "new-plugin": "Write a complete package for a model, dataset or backbone of your own.",
    "check-plugin": "Check that an installed package's models, datasets and backbones behave.",
    "bundle": "Collect wheels and weights for an offline machine, or verify them.",
}

INTERRUPTED = "adcore: interrupted; nothing half-written was left"


def plugin_commands() -> dict[str, click.Command]:
    """Commands that plugins add, by name; one that has the name of adcore's own is left out with a line on stderr."""
    from adcore.plugins import CommandCard, load_plugins

    added = {}
    for name, (card, origin) in load_plugins().cards[CommandCard].items():
        if name in COMMANDS:
            click.echo(f"adcore: the command '{name}' of {origin} is left out: adcore has one of that name", err=True)
        else:
            added[name] = card.command
    return added


class LazyGroup(click.Group):
    """A group whose commands are imported on use; plugins are asked only for names that adcore does not have."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *plugin_commands()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return plugin_commands().get(name)
        return import_module(f"adcore.cli.{name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        added = plugin_commands()
        if added:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, command.get_short_help_str()) for name, command in added.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        name = args[0] if args else ""
        if name and name not in COMMANDS and not name.startswith("-") and name not in (added := plugin_commands()):
            ctx.fail(f"no command '{name}'{suggest(name, [*COMMANDS, *added])}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="adcore")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Visual anomaly detection for industry: train on normal images, detect and localise anomalies."""


def main() -> None:
    """Entry point: an error that a user can cause is one line on stderr and exit code 2."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # also after the command
    if not debug:  # a file that Pillow warns of is either read, or one line that names it
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        cli.main(arguments, prog_name="adcore", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort) as stop:
        where = str(stop.__cause__ or stop)  # the plugin that was loading, if one was
        click.echo(f"adcore: interrupted {where}" if where else INTERRUPTED, err=True)
        sys.exit(130)
    except AdcoreError as error:
        if debug:
            raise
        click.echo(f"adcore: {error}", err=True)
        sys.exit(2)
    except SystemExit as stop:  # no command of adcore ends with 0 this way: the model or reader of a plugin does
        if debug or stop.code or not arguments or arguments[0] not in COMMANDS:
            raise
        click.echo(
            "adcore: a plugin's code ended the program (SystemExit) before the end; --debug shows where", err=True
        )
        sys.exit(2)
    except BrokenPipeError:  # `adcore list-models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        if debug:
            raise
        click.echo(f"adcore: {error.strerror or error}: {error.filename or ''} (--debug shows where)", err=True)
        sys.exit(2)
