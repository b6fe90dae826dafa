"""Training images that should not be there are said aloud."""

from __future__ import annotations

import shutil

import adcore
from adcore.data.audit import training_notes
from adcore.data.samples import Sample
from adcore.testing import write_tiny_mvtec


def test_a_defective_test_image_among_the_training_images_is_reported(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "data")
    shutil.copy(data / "part" / "test" / "spot" / "009.png", data / "part" / "train" / "good" / "099.png")
    run = adcore.train(
        f"mvtec:{data}", "part", "autoencoder", num_epochs=1, width=4, image_size=64, out=tmp_path / "run"
    )
    (note,) = [note for note in run.summary["notes"] if "099.png" in note]
    assert note.startswith("1 training image is also among the anomalous images that validate or test")


def test_clean_data_gives_no_note(tmp_path) -> None:
    from adcore.registry import open_dataset

    data = write_tiny_mvtec(tmp_path / "data")
    assert training_notes(open_dataset("mvtec", str(data)).samples("part"), supervised=False) == []


def test_labelled_anomalies_are_counted_for_unsupervised_models_only(tmp_path) -> None:
    samples = [Sample(tmp_path / f"{i}.png", "train", int(i < 2), "part") for i in range(5)]
    (note,) = training_notes(samples, supervised=False)
    assert note.startswith("2 training images are labelled anomalous and left out")
    assert training_notes(samples, supervised=True) == []


def test_equal_beginnings_do_not_make_equal_files(tmp_path) -> None:
    for name, last in (("a", b"x"), ("b", b"y")):
        (tmp_path / name).write_bytes(b"0" * 100_000 + last)
    samples = [Sample(tmp_path / "a", "train", 0, "part"), Sample(tmp_path / "b", "test", 0, "part")]
    assert training_notes(samples, supervised=False) == []
