"""Lines of the log: JSON, whatever they are about."""

from __future__ import annotations

import json
import logging

import pytest

from infra.logs import _JsonLines


@pytest.mark.parametrize("value", ["plain", "\udcff in a path", 2**80, {1: "x"}, object, float("nan")])
def test_every_record_is_one_line_of_json(value: object) -> None:
    record = logging.makeLogRecord({"msg": "found", "levelname": "INFO", "name": "here", "value": value})

    line = _JsonLines().format(record)

    assert "\n" not in line
    assert json.loads(line)["event"] == "found"
    assert "value" in json.loads(line)
