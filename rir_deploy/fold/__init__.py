"""The fold: an ONNX graph whose branches are affine becomes one convolution a block."""

from rir_deploy.fold.fold import FoldOptions, FoldResult, check_fold, fold
from rir_deploy.fold.layers import Layer, list_layers
from rir_deploy.fold.work import Work, measure_work

__all__ = ["FoldOptions", "FoldResult", "Layer", "Work", "check_fold", "fold", "list_layers", "measure_work"]
