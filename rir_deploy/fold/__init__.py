"""The fold: an ONNX graph whose branches are affine becomes one convolution a block."""

from rir_deploy.fold.fold import FoldOptions, FoldResult, fold
from rir_deploy.fold.work import Work, measure_work

__all__ = ["FoldOptions", "FoldResult", "Work", "fold", "measure_work"]
