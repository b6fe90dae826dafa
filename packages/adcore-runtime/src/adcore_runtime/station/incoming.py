"""Reading requests: token, body with a limit, the input of the Open Inference Protocol, boxes of a review."""

from __future__ import annotations

import base64
import hmac
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import Request

MOST_BOXES = 100  # of one review


class Unwanted(Exception):
    """A request that is answered with an HTTP status, and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def allowed(header: str, token: str) -> bool:
    """Whether an Authorization header has the token: `Bearer TOKEN`, or as the password of `Basic`, as browsers ask for."""
    kind, _, given = header.partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    return hmac.compare_digest(given.encode(), token.encode())


async def body(request: Request, limit: int) -> bytes:
    """The body; 413 as soon as it is known to be beyond `limit` bytes."""
    announced = request.headers.get("content-length", "0")
    received = bytearray()
    if not announced.isdecimal() or int(announced) <= limit:
        async for part in request.stream():
            received += part
            if len(received) > limit:
                break
        else:
            return bytes(received)
    raise Unwanted(413, f"the body has more than {limit} bytes; send a smaller image, or start with a larger --max-mb")


def infer_input(data: bytes) -> tuple[str, bytes]:
    """Id and image of a v2 request; 422 where it has none."""
    try:
        asked = json.loads(data)
        (found,) = asked["inputs"]
        (text,) = found["data"]
        if found["datatype"] != "BYTES":
            raise ValueError
        return str(asked.get("id") or ""), base64.b64decode(text, validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        reason = "one input is needed: datatype BYTES, shape [1], data with an image file in base64"
        raise Unwanted(422, reason) from None


def drawn_boxes(data: bytes, row: dict[str, Any]) -> list[list[int]]:
    """The boxes [x, y, width, height] of a review, in whole pixels and within the image; none without a body.

    422 for anything else.
    """
    if not data:
        return []
    try:
        given = json.loads(data)["regions"]
        boxes = [_inside(*(float(value) for value in box), row["height"], row["width"]) for box in given]
        if len(boxes) > MOST_BOXES or not all(box[2] > 0 and box[3] > 0 for box in boxes):
            raise ValueError
        return boxes
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        reason = f'regions are at most {MOST_BOXES} boxes within the image: {{"regions": [[x, y, width, height]]}}'
        raise Unwanted(422, reason) from None


def _inside(x: float, y: float, width: float, height: float, rows: int, columns: int) -> list[int]:
    """A box in whole pixels, without what lies outside an image of `rows` x `columns`."""
    left, top = max(0, math.floor(x)), max(0, math.floor(y))
    return [left, top, min(columns, math.ceil(x + width)) - left, min(rows, math.ceil(y + height)) - top]
