"""Estimates that are wrong, as those of containers without a stated length can be."""

from dataclasses import replace

import pytest

from tasks.records import PlannedObject
from tasks.shards import PlannedShards


def estimate_all(monkeypatch: pytest.MonkeyPatch, estimate_ms: int) -> None:
    """Let every object of every shard be taken for one of so many milliseconds."""
    planned = PlannedShards.objects

    def objects(shards: PlannedShards, number: int) -> list[PlannedObject]:
        return [replace(each, estimate_ms=estimate_ms) for each in planned(shards, number)]

    monkeypatch.setattr(PlannedShards, "objects", objects)
