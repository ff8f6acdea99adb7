"""An epoch that has begun: in checkpoints a few sums, and where the data stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from pynn import random
from pynn.data import DataLoader
from pynn.train.totals import Totals


@dataclass
class RunningEpoch:
    """What is left of an epoch, and what it has come to."""

    batches: Iterator[Any]
    totals: Totals
    start: dict[str, Any] | None = None  # the loader's state and the random numbers from which its batches follow
    should_stop: bool = False  # what the trainer was told before the checkpoint

    @classmethod
    def begin(cls, loader: Any, keep_start: bool) -> RunningEpoch:
        """Begin the loader's next epoch; `state_dict` needs its start."""
        start = _start(loader) if keep_start else None
        return cls(iter(loader), Totals(), start)

    @classmethod
    def go_on(cls, state: Mapping[str, Any], loader: Any) -> RunningEpoch:
        """Begin the epoch of a `state_dict` again and leave out the batches that are done.

        Who calls it then gives loader and random numbers the state of that moment. ValueError if the data differ.
        """
        for name, now in _cut(loader).items():
            if (then := state["cut"].get(name)) != now:
                raise ValueError(f"it is within an epoch of data with {name} {then}, these have {now}")
        start, totals = state["start"], Totals(**state["totals"])
        random.set_rng_state(start["random"])
        if start["loader"] is not None:
            loader.load_state_dict(start["loader"])
        if type(loader).__iter__ is DataLoader.__iter__:
            batches, there = loader._iter_from(totals.batches), len(loader)
        else:
            batches = iter(loader)
            there = sum(1 for _ in islice(batches, totals.batches))
        if not 0 < totals.batches <= there:
            raise ValueError(f"it is {totals.batches} batches into an epoch, the data have {there}")
        return cls(batches, totals, start, state["should_stop"])

    def state_dict(self, loader: Any, should_stop: bool) -> dict[str, Any]:
        """Return what `go_on` needs, fit for JSON."""
        return {"start": self.start, "cut": _cut(loader), "totals": asdict(self.totals), "should_stop": should_stop}


def _start(loader: Any) -> dict[str, Any]:
    position = deepcopy(loader.state_dict()) if hasattr(loader, "state_dict") else None
    return {"loader": position, "random": random.get_rng_state()}


def _cut(loader: Any) -> dict[str, Any]:
    """Return what decides where batches begin and end, as far as it is known."""
    if isinstance(loader, DataLoader):
        return {name: getattr(loader, name) for name in ("num_samples", "batch_size", "shuffle", "drop_last")}
    return {"batches": len(loader)} if isinstance(loader, Sized) else {}
