"""Reading meaning from folder names: which images of any tree are normal, anomalous, masks, for training or for test."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePath

from adcore.data.layout import images_below, mask_stem
from adcore.data.samples import ANOMALOUS, NORMAL, Sample
from adcore.errors import DataError

NORMAL_NAMES = {"good", "normal", "ok", "okay", "healthy", "intact", "perfect", "defect_free", "non_defective"}
ANOMALOUS_NAMES = {"bad", "anomaly", "anomalies", "anomalous", "abnormal", "defect", "defects", "defective", "ko", "ng"}
ANOMALOUS_NAMES |= {"nok", "not_ok", "fault", "faults", "faulty", "broken", "damaged", "reject", "rejected"}
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "valid", "validation"), "val")
MASK_NAMES = {"mask", "masks", "ground_truth", "groundtruth", "ground-truth", "gt"}
KNOWN_NAMES = NORMAL_NAMES | ANOMALOUS_NAMES | SPLIT_NAMES.keys() | MASK_NAMES
HELP = "give metadata=FILE.csv with the columns image_path,split,label,defect,mask_path"


def scan_tree(root: Path, category: str, test_ratio: float) -> list[Sample]:
    """Samples of a tree of images, from its folder names; DataError where a name leaves the label open.

    Folders called train, test or val give the split; good, normal, ok, ... and bad, defect, ko, ... the label; mask or
    ground_truth the masks. Any other folder in test, or beside a normal one, is a kind of defect (beside both a normal
    and an anomalous one it is an error); below train, or in a tree with no such names at all, it is normal. Without
    split folders normal images are for training and anomalous ones for test, where a share `test_ratio` of the normal
    ones goes too.
    """
    images, masks = tree_files(root)
    folders = {folder for image in images for folder in image.parents}
    beside_normal = {folder.parent for folder in folders if folder.name.lower() in NORMAL_NAMES}
    beside_anomalous = {folder.parent for folder in folders if folder.name.lower() in ANOMALOUS_NAMES}
    labels = {image: _label(image, beside_normal, beside_anomalous, root) for image in images}
    mask_of = _match_masks([image for image in images if labels[image][0] == ANOMALOUS], masks, root)
    samples = []
    for image in images:
        label, defect = labels[image]
        split = _split(image) or ("train" if label == NORMAL else "test")
        mask = root / mask_of[image] if image in mask_of else None
        samples.append(Sample(root / image, split, label, category, defect, mask))
    return _hold_out(samples, root, test_ratio)


def tree_files(root: Path) -> tuple[list[Path], list[Path]]:
    """Paths, relative to `root`, of all images and of all masks below it."""
    files = [path.relative_to(root) for path in images_below(root)]
    stems = {file.with_suffix("") for file in files}
    masks = {file for file in files if _is_mask(file, stems)}
    return [file for file in files if file not in masks], sorted(masks)


def _split(file: PurePath) -> str | None:
    return next((SPLIT_NAMES[part.lower()] for part in file.parent.parts if part.lower() in SPLIT_NAMES), None)


def _is_mask(file: PurePath, stems: set[PurePath]) -> bool:
    if any(part.lower() in MASK_NAMES for part in file.parent.parts):
        return True
    stem = mask_stem(file.name)
    return stem != file.stem and file.with_name(stem) in stems  # 1_mask.png beside 1.jpg


def _label(image: Path, beside_normal: set[Path], beside_anomalous: set[Path], root: Path) -> tuple[int, str]:
    """(label, defect) from the folders above an image; the innermost telling name wins."""
    folders = [folder for folder in image.parents if folder.name and folder.name.lower() not in SPLIT_NAMES]
    for folder in folders:  # innermost first
        name = folder.name.lower()
        if name in NORMAL_NAMES:
            return NORMAL, "good"
        if name in ANOMALOUS_NAMES:
            return ANOMALOUS, folders[0].name  # bad/scratch/1.png: a scratch
        if folder.parent in beside_normal & beside_anomalous:
            raise DataError(
                f"{root / folder}: cannot tell whether it is normal or a defect, because folders of both are beside it; "
                f"move it into one of them, or {HELP}"
            )
        if folder.parent in beside_normal:
            return ANOMALOUS, folder.name
    split = _split(image)
    if split == "test" and folders:
        return ANOMALOUS, folders[-1].name
    if split in ("test", "val"):
        raise DataError(
            f"{root / image}: no folder says whether it is normal; move it to {split}/good or {split}/DEFECT, or {HELP}"
        )
    return NORMAL, "good"


def _match_masks(images: list[PurePath], masks: list[PurePath], root: Path) -> dict[PurePath, PurePath]:
    """Masks by image: the same name under the same folders, not counting those that say split, mask or label."""
    found: dict[PurePath, PurePath] = {}
    # strict first: ground_truth/bad/0 is for bad/0, and only without it mask/0 may be
    for ignored in (SPLIT_NAMES.keys() | MASK_NAMES, KNOWN_NAMES):
        open_images = [image for image in images if image not in found]
        used = set(found.values())
        open_masks = {_key(mask, ignored): mask for mask in masks if mask not in used}
        claims = Counter(_key(image, ignored) for image in open_images)
        for image in open_images:
            key = _key(image, ignored)
            if key in open_masks and claims[key] > 1:
                raise DataError(f"{root / open_masks[key]}: several images fit this mask, such as {image}; {HELP}")
            if key in open_masks:
                found[image] = open_masks[key]
    if masks and images and not found:
        raise DataError(
            f"{root / masks[0]}: none of the {len(masks)} masks has the name of an anomalous image; rename them or {HELP}"
        )
    return found


def _key(file: PurePath, ignored: set[str]) -> tuple[str, ...]:
    return (*(part.lower() for part in file.parent.parts if part.lower() not in ignored), mask_stem(file.name))


def _hold_out(samples: list[Sample], root: Path, ratio: float) -> list[Sample]:
    """Move some normal images to test where test would have none; a hash of the path decides, so additions do not reshuffle."""
    tested = {sample.label for sample in samples if sample.split == "test"}
    free = [s for s in samples if s.label == NORMAL and not _split(s.image_path.relative_to(root))]
    count = min(max(round(ratio * len(free)), 1), len(free) - 1) if ratio > 0 and tested == {ANOMALOUS} else 0
    ranked = sorted(free, key=lambda s: sha256(s.image_path.relative_to(root).as_posix().encode()).digest())
    chosen = set(ranked[: max(count, 0)])
    return [replace(sample, split="test") if sample in chosen else sample for sample in samples]
