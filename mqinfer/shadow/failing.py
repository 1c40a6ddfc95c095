"""Failing: whether messages fail clearly more often with a canary than beside it.

Every worker adds what it has counted (`inference.canaried`) to one value of each stage in the app's
state bucket, `<stage>.canary.<model>.<alias>`, so that a small share on many workers, and workers
that die, are no reason to wait for long. It is a test of two proportions: the canary fails more
where Wilson's 99.9 % interval of its share of failures lies wholly above that of the version beside
it, and what is too small to matter lies between; after 20 messages at least. Looking again and
again makes chance look often, which intervals as far apart as these leave room for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from mqinfer.bucket import change
from mqinfer.errors import ConflictError
from mqinfer.inference.canaried import Tried
from mqinfer.message import key_token
from mqinfer.monitor.distance import wilson
from mqinfer.monitor.reference import SURE, TOO_SMALL

if TYPE_CHECKING:
    from mqinfer.bucket import Bucket
    from mqinfer.inference.aliases import Canary
    from mqinfer.inference.canaried import Canaried, Place

LEAST: Final = 20  # first inputs of the canary's share, before anything is said


def fails_more(tried: Tried) -> bool:
    """Whether the canary fails more often than what stands beside it, beyond chance."""
    if tried.asked < LEAST:
        return False
    least, _ = wilson(tried.failed, tried.asked, SURE)
    _, most = wilson(tried.others_failed, tried.others, SURE)
    return bool(least > most + TOO_SMALL)


class Failing:
    """Whether canaries fail, as all workers have counted.

    Args:
        bucket: of the app's state.
        canaried: of this process.
    """

    def __init__(self, bucket: Bucket, canaried: Canaried):
        self._bucket = bucket
        self._canaried = canaried

    async def look(self, model: str, alias: str, canary: Canary) -> str:
        """Add what was counted here; why the canary is to go back, or "".

        Raises:
            Unavailable: NATS does not answer.
        """
        for place, new in self._canaried.counted(model, alias, canary).items():
            if not (new.asked or new.others):
                continue
            key = key_of(place)
            try:
                _, after = await change(self._bucket, key, partial(_add, new), what=key)
            except ConflictError:
                continue  # others keep adding theirs; these wait
            self._canaried.told(place, new)
            found = read(after)
            if found is not None and fails_more(found):
                return (
                    f"stage {place.stage} fails for {found.failed:,} of {found.asked:,} with it, "
                    f"and for {found.others_failed:,} of {found.others:,} beside it: {found.why}"
                )
        return ""


def key_of(place: Place) -> str:
    """Where the counts of all workers are."""
    return f"{place.stage}.canary.{key_token(place.model)}.{place.alias}"


def read(value: bytes | None) -> Tried | None:
    """Counts as they lie in the bucket; None where there are none."""
    try:
        return msgspec.json.decode(value or b"", type=Tried)
    except msgspec.MsgspecError:
        return None


def _add(new: Tried, value: bytes | None) -> bytes:
    held = read(value)
    return msgspec.json.encode(held.plus(new) if held is not None and held.of(new) else new)
