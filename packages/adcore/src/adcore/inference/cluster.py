"""Scoring many images on a Ray cluster, through Ray Data; the caller writes their rows as one Parquet file."""

from __future__ import annotations

import csv
import glob
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from adcore_runtime.csv_cells import plain
from adcore_runtime.listing import check_name, find_images, is_image
from adcore_runtime.rows import PLAIN, RowOptions, prediction_row

from adcore.data.dataset import Skipped
from adcore.data.samples import DatasetReader, Sample
from adcore.errors import AdcoreError, ConfigError, DataError
from adcore.evaluation.score import score_each
from adcore.files import atomic_path
from adcore.inference.predictor import Predictor, load
from adcore.model import BatchModel
from adcore.ray_cluster import last_line, start_ray
from adcore.settings import set_globals, settings

BATCH = 16  # images that a worker gets at a time
TABLE = "predictions.parquet"
LISTS = (".csv", ".parquet")  # files with a column `path`


@dataclass(frozen=True)
class Cluster:
    """`count` workers of a Ray cluster that load `artifact` each, or one a GPU or core; `options` are those of ray.init."""

    artifact: Path
    category: str | None
    options: Mapping[str, Any]
    count: int | None = None
    device: str = "auto"  # "cpu": no GPUs

    def predict_files(
        self, predictor: Predictor, source: Path, out: Path, skip_bad: bool = False, options: RowOptions = PLAIN
    ) -> Iterator[dict[str, Any] | Skipped]:
        """Rows of `source` in its order, as `predict_files` gives them without `out`; they are in out/TABLE at the end.

        ConfigError where Ray or the model does not allow it, DataError for a file that cannot be read, unless `skip_bad`.
        """
        if isinstance(predictor.model, BatchModel):
            raise ConfigError(
                f"{predictor.model.card.name} scores the images of a folder together; leave --executor out"
            )
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise ConfigError('Parquet needs one more package: pip install "adcore[ray]"') from None
        paths = listed_images(source)
        ray, written = start_ray(self.options), 0
        schema = _schema(options)
        try:
            with atomic_path(out / TABLE) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
                for table in self._scored(ray, paths, skip_bad, options):
                    rows = table.to_pylist()
                    failed = [row["problem"] for row in rows if row["problem"] and not (skip_bad and row["skipped"])]
                    if failed:
                        raise DataError(failed[0])
                    good = table.filter(table["problem"].is_null())
                    writer.write_table(good.select(schema.names))
                    written += len(good)
                    for row in rows:
                        yield Skipped(row["path"], row["problem"]) if row["problem"] else _plain(row, schema.names)
                if not written:
                    raise DataError(f"no image could be scored, so {TABLE} would be empty; see the skipped images")
        finally:
            ray.shutdown()

    def _scored(self, ray: Any, paths: list[Path], skip_bad: bool, options: RowOptions) -> Iterator[Any]:
        """Arrow tables of rows, with the columns `problem` and `skipped`."""
        import ray.data as data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = data.DataContext.get_current()
        context.enable_progress_bars, context.execution_options.preserve_order = False, True
        resources = ray.cluster_resources()
        on_gpu = self.device != "cpu" and resources.get("GPU", 0) >= 1
        count = self.count or max(1, int(resources.get("GPU" if on_gpu else "CPU", 1)))
        begin = {
            "artifact": self.artifact.absolute(),
            "category": self.category,
            "device": "cuda" if on_gpu else "cpu",
            "skip_bad": skip_bad,
            "options": options,
            "values": asdict(settings()),
        }
        items = [{"path": str(path), "file": str(path.absolute())} for path in paths]
        scored = data.from_items(items).map_batches(
            Scorer,
            batch_size=BATCH,
            batch_format="pyarrow",
            concurrency=min(count, -(-len(items) // BATCH)),
            num_cpus=1,
            num_gpus=int(on_gpu),
            fn_constructor_kwargs=begin,
        )
        try:
            yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")
        except ray.exceptions.RayError as error:
            raise AdcoreError(f"--executor ray: {last_line(error)}") from error


class Scorer:
    """A worker: it loads the model once, and makes rows of Arrow tables of `path` and `file`."""

    def __init__(
        self,
        artifact: Path,
        category: str | None,
        device: str,
        skip_bad: bool,
        options: RowOptions,
        values: dict[str, Any],
    ) -> None:
        set_globals(**values)
        torch.set_num_threads(1)  # of the one processor that it has asked for
        self.predictor = load(artifact, device, category=category)
        self.skip_bad, self.options = skip_bad, options

    def __call__(self, table: Any) -> Any:
        """The rows of a table of images."""
        import pyarrow as pa

        names, files = table["path"].to_pylist(), table["file"].to_pylist()
        samples = [Sample(Path(file), "test", 0, "") for file in files]
        predictor, rows = self.predictor, []
        found = score_each(
            predictor.model, predictor.preprocess, DatasetReader(Path("/")), samples, predictor.device, skip_bad=True
        )
        try:
            for name, one in zip(names, found, strict=True):
                if isinstance(one, Skipped):
                    rows.append({"path": name, "problem": one.reason, "skipped": True})
                    continue
                result = predictor.result(one.score, one.anomaly_map)
                rows.append(prediction_row(Path(name), result, self.options) | {"path": name})
        except AdcoreError as error:
            rows.append({"path": names[len(rows)], "problem": str(error), "skipped": False})
        schema = _schema(self.options).append(pa.field("problem", pa.string())).append(pa.field("skipped", pa.bool_()))
        return pa.Table.from_pylist(rows, schema)


def listed_images(source: Path) -> list[Path]:
    """Images of a folder, of a glob, or in the column `path` of a CSV or Parquet list, whose folder relative paths start at.

    A folder and a glob are in the order of their paths, a list in its own. DataError where there is none.
    """
    if source.is_dir():
        return find_images(source)
    if source.suffix.lower() in LISTS and source.is_file():
        found = [source.parent / path for path in _column(source)]
    elif glob.has_magic(str(source)):
        found = [Path(path) for path in sorted(glob.glob(str(source), recursive=True))]
        found = [path for path in found if is_image(path.name) and path.is_file()]
    else:
        return find_images(source)
    if not found:
        raise DataError(f"{source} names no image; give a folder, a glob, or a {' or '.join(LISTS)} list of paths")
    return [check_name(path) for path in found]


def _column(source: Path) -> list[str]:
    wrong = f"{source} needs a column 'path' with the path of an image in each row"
    if source.suffix.lower() == ".csv":
        try:
            with open(source, newline="", encoding="utf-8-sig") as file:
                paths = [plain(row["path"] or "") for row in csv.DictReader(file)]
        except (KeyError, ValueError, csv.Error):
            raise DataError(wrong) from None
    else:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        try:
            paths = parquet.read_table(source, columns=["path"])["path"].to_pylist()
        except (KeyError, pa.ArrowException):
            raise DataError(wrong) from None
    if not all(isinstance(path, str) and path for path in paths):
        raise DataError(wrong)
    return paths


def _schema(options: RowOptions) -> Any:
    """Columns of the rows that are written."""
    import pyarrow as pa

    columns = {"path": pa.string(), "score": pa.float64(), "normalized_score": pa.float64(), "predicted": pa.int64()}
    return pa.schema(columns | ({"verdict": pa.string()} if options.band else {}))


def _plain(row: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}
