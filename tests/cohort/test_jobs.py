"""One job gives the same on every machine: paths are the user's, whatever folder the process is in."""

from pathlib import Path

import pytest
import torch
from cohort.thin import thin_scan
from scan.scans import write_series

from gcnn_cli.cohort.jobs import make_job, run_job
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Scan
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.network.weights import load_model


@pytest.mark.parametrize("elsewhere", [False, True])
def test_every_format_of_a_relative_path_is_rendered(phantom, weights, tmp_path, monkeypatch, elsewhere):
    """An SR reads the headers of the series again."""
    volume = thin_scan(phantom, 0)
    write_series(tmp_path / "in" / "ct", volume.hu, volume.to_world)
    scan = Scan(Path("in/ct"), "ct")
    request = Request(("json", "html", "png", "sr"), Path("out"), 0.5, root=tmp_path)
    monkeypatch.chdir("/" if elsewhere else tmp_path)
    detector = make_detector(load_model(str(weights)), torch.device("cpu"))
    result = run_job(make_job(scan, request, alone=False), detector)
    assert result.failure is None
    assert set(result.files) == set(request.formats)
    assert result.report.scan.source.path == "in/ct"
    assert result.report.lungs is None  # too large to keep for a cohort, or to send
    assert str(tmp_path).encode() not in result.files["json"] + result.files["html"] + result.files["sr"]
