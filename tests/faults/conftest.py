"""Keeps how each fault ended, for the page of the results: in the file that ``FAULTS_RESULTS`` names."""

import json
import os
from pathlib import Path

import pytest

_RESULTS: list[list[object]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Under xdist this is called in the process that collects the reports of all."""
    if report.when == "call" or report.outcome == "failed":
        cells = [value for name, value in report.user_properties if name == "fault"]
        _RESULTS.extend([*cell, report.outcome] for cell in cells if isinstance(cell, list))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write once, where all reports have come together."""
    target = os.environ.get("FAULTS_RESULTS")
    if target and not hasattr(session.config, "workerinput"):
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_RESULTS))
