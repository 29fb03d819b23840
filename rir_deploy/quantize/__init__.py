"""Post-training quantisation: calibration, rounding, and Q/DQ pairs where each runtime computes on integers."""

from rir_deploy.quantize.fitting import Candidate, TuneOptions
from rir_deploy.quantize.observe import activation_names, mark_outputs, unbounded_names
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.quantize import QuantizeResult, quantize
from rir_deploy.quantize.ranges import RangeOptions, collect_ranges
from rir_deploy.quantize.table import Range, RangeTable, Sources
from rir_deploy.quantize.tune import Tuned, tune
from rir_deploy.quantize.weights import RoundedWeight

__all__ = [
    "Candidate",
    "QuantizeOptions",
    "QuantizeResult",
    "Range",
    "RangeOptions",
    "RangeTable",
    "RoundedWeight",
    "Sources",
    "TuneOptions",
    "Tuned",
    "activation_names",
    "collect_ranges",
    "mark_outputs",
    "quantize",
    "tune",
    "unbounded_names",
]
