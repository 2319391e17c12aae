"""gcnn: pulmonary nodules in chest CT with 3D group-equivariant CNNs.

    import gcnn_cli as gcnn

    report = gcnn.detect("sample_data/thorax.mhd")
    report.save("results", "csv,json,html")

The layers are in `gcnn_cli.symmetry`. Names are imported on first use, so that `gcnn --help` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

NOTICE = "For research use only. Not a medical device; not for diagnosis."

if TYPE_CHECKING:
    from gcnn_cli.api import ScanReport as ScanReport
    from gcnn_cli.api import detect as detect
    from gcnn_cli.api import evaluate as evaluate
    from gcnn_cli.detection.detector import Detector as Detector
    from gcnn_cli.detection.detector import make_detector as make_detector
    from gcnn_cli.detection.findings import Nodule as Nodule
    from gcnn_cli.detection.findings import Report as Report
    from gcnn_cli.errors import GcnnError as GcnnError
    from gcnn_cli.evaluation.evaluation import Evaluation as Evaluation
    from gcnn_cli.evaluation.evaluation import EvaluationConfig as EvaluationConfig
    from gcnn_cli.evaluation.evaluation import evaluate_matches as evaluate_matches
    from gcnn_cli.evaluation.inputs import EvaluationInput as EvaluationInput
    from gcnn_cli.evaluation.matching import MatchRule as MatchRule
    from gcnn_cli.network.devices import choose_device as choose_device
    from gcnn_cli.network.weights import TrainedModel as TrainedModel
    from gcnn_cli.network.weights import load_model as load_model
    from gcnn_cli.output.formats import write_report as write_report
    from gcnn_cli.output.json_reading import read_report as read_report
    from gcnn_cli.scan.reading import read_volume as read_volume
    from gcnn_cli.scan.volume import Volume as Volume
else:  # a type checker would take a module with __getattr__ to have every name
    _MODULES = {  # the same imports, by name
        "Detector": "detection.detector",
        "Evaluation": "evaluation.evaluation",
        "EvaluationConfig": "evaluation.evaluation",
        "EvaluationInput": "evaluation.inputs",
        "GcnnError": "errors",
        "MatchRule": "evaluation.matching",
        "Nodule": "detection.findings",
        "Report": "detection.findings",
        "ScanReport": "api",
        "TrainedModel": "network.weights",
        "Volume": "scan.volume",
        "choose_device": "network.devices",
        "detect": "api",
        "evaluate": "api",
        "evaluate_matches": "evaluation.evaluation",
        "load_model": "network.weights",
        "make_detector": "detection.detector",
        "read_report": "output.json_reading",
        "read_volume": "scan.reading",
        "write_report": "output.formats",
    }
    __all__ = ["NOTICE", "__version__", *_MODULES]

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
