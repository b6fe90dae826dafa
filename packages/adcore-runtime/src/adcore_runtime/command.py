"""`adcore-predict MODEL IMAGE|FOLDER [--out DIR]`: the files and exit codes of `adcore predict`, without torch."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from adcore_runtime import __version__
from adcore_runtime.errors import AdcoreError
from adcore_runtime.help_texts import CATEGORY, FULL_SIZE, MIN_AREA, PIXEL_THRESHOLD, REGIONS, REVIEW_BAND, SAVE_CROPS

CLOSED_PIPE = 141  # the exit code of a program that SIGPIPE ends, as shells see it


def main() -> None:
    """Entry point: an error that a user can cause is one line on stderr and exit code 2."""
    options = arguments()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)
    if not options.debug:  # a file that Pillow warns of is either read, or one line that names it
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        predict(options)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print("adcore-predict: interrupted; nothing half-written was left", file=sys.stderr)
        sys.exit(143 if stop.args else 130)
    except BrokenPipeError:  # `adcore-predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)
    except (AdcoreError, OSError) as error:
        if options.debug:
            raise
        text = f"{error.strerror or error}: {error.filename or ''}" if isinstance(error, OSError) else str(error)
        print(f"adcore-predict: {text}", file=sys.stderr)
        sys.exit(2)


def arguments() -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(
        prog="adcore-predict", description="Score an image or all images below a folder with an exported model."
    )
    parser.add_argument("model", type=Path, help="ONNX file that adcore export wrote")
    parser.add_argument("source", type=Path, help="image, or folder of images")
    parser.add_argument("--out", type=Path, help="folder for predictions.csv, maps (float TIFF) and overlays")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that holds results")
    parser.add_argument("--skip-bad", action="store_true", help="leave unreadable images out, and list them")
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime (default) or openvino")
    parser.add_argument("--threads", type=int, help="cores to use; all by default")
    parser.add_argument("--threshold", type=float, help="instead of the stored one")
    parser.add_argument("--category", help=CATEGORY)
    parser.add_argument("--regions", action="store_true", help=REGIONS)
    parser.add_argument("--pixel-threshold", type=float, help=PIXEL_THRESHOLD)
    parser.add_argument("--min-area", type=float, help=MIN_AREA)
    parser.add_argument("--save-crops", action="store_true", help=SAVE_CROPS)
    parser.add_argument("--full-size", action="store_true", help=FULL_SIZE)
    parser.add_argument("--review-band", metavar="LOW,HIGH", help=REVIEW_BAND)
    parser.add_argument("--json", action="store_true", dest="as_json", help="machine-readable output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"adcore-predict, version {__version__}")
    return parser.parse_args()


def predict(options: argparse.Namespace) -> None:
    """Score, print and write what the command line asks for."""
    from adcore_runtime.errors import ConfigError
    from adcore_runtime.files import new_folder
    from adcore_runtime.predictor import Skipped, load
    from adcore_runtime.rows import RowOptions, printed

    if options.save_crops and not options.out:
        raise ConfigError("--save-crops needs --out, the folder to save them in")
    if options.full_size and not options.out:
        raise ConfigError("--full-size needs --out, the folder to save the maps in")
    if options.out:
        new_folder(options.out, options.overwrite)
    predictor = load(options.model, options.backend, options.threads, options.threshold, options.category)
    wanted = RowOptions.chosen(
        options.regions,
        options.pixel_threshold,
        options.min_area,
        options.review_band,
        options.save_crops,
        predictor.calibration,
        options.full_size,
    )
    rows, skipped = [], []
    for one in predictor.predict_files(options.source, options.out, options.skip_bad, wanted):
        bad = isinstance(one, Skipped)
        if options.as_json:
            (skipped if bad else rows).append(asdict(one) if bad else one)
        elif bad:
            print(f"     skipped  {one.reason}", file=sys.stderr)
        else:
            print(printed(one))
    if options.as_json:
        print(json.dumps({"predictions": rows, "skipped": skipped}, indent=2, allow_nan=False))
    elif options.out:
        print(f"written to {options.out}")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    main()
