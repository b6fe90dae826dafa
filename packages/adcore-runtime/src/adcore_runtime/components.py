"""Connected parts of a mask and their outlines, in numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # along pixel edges: right, down, left, up
# the two pixels ahead of a corner, on the left and on the right hand, for each step
LEFT = ((-1, 0), (0, 0), (0, -1), (-1, -1))
RIGHT = ((0, 0), (0, -1), (-1, -1), (-1, 0))


class Runs(NamedTuple):
    """Horizontal runs of True pixels, row by row; (runs,) int64 each."""

    row: np.ndarray
    start: np.ndarray  # first column
    stop: np.ndarray  # the column after the last


def runs_of(mask: np.ndarray) -> Runs:
    """The runs of a mask (h, w) bool."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    row, start = np.nonzero(change == 1)
    return Runs(row, start, np.nonzero(change == -1)[1])


def components(runs: Runs) -> np.ndarray:
    """(runs,) int64: the number of each run's 8-connected part, from 0 in the order of their first pixels."""
    count = len(runs.row)
    line = int(runs.stop.max(initial=0)) + 2  # longer than a row: runs of different rows never meet in these keys
    above = (runs.row - 1) * line
    low = np.searchsorted(runs.row * line + runs.stop, above + runs.start, "left")  # runs of the row above that touch
    high = np.searchsorted(runs.row * line + runs.start, above + runs.stop, "right")
    touching = np.maximum(high - low, 0)
    second = np.repeat(np.arange(count), touching)
    first = np.arange(touching.sum()) + np.repeat(low - (np.cumsum(touching) - touching), touching)
    parent = np.arange(count)
    while True:  # the larger root hangs on the smaller one, until both ends of each pair have one root
        a, b = parent[first], parent[second]
        if np.array_equal(a, b):
            return np.unique(parent, return_inverse=True)[1]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]


def outline(mask: np.ndarray) -> np.ndarray:
    """(corners, 2) row and column of the outer outline of one 8-connected part (h, w) bool, clockwise, along pixel edges."""
    inside = np.pad(mask, 1)
    y, x = start = (0, int(mask[0].argmax()))
    direction, corners = 0, [start]
    while True:
        y, x = y + int(STEPS[direction][0]), x + int(STEPS[direction][1])
        ahead = [inside[y + dy + 1, x + dx + 1] for dy, dx in (LEFT[direction], RIGHT[direction])]
        # the part is on the right hand; a pixel that touches at the corner belongs to it
        turned = (direction - 1) % 4 if ahead[0] else direction if ahead[1] else (direction + 1) % 4
        if (y, x) == start and turned == 0:
            return np.array(corners)
        if turned != direction:
            corners.append((y, x))
        direction = turned
