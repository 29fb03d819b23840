"""The RiR family in PyTorch: its configuration, modules, checkpoints and training.

This package's own import loads no torch: the configuration side is here, the modules are imported from
``rir``, ``checkpoint``, ``factory`` and ``train`` by who needs them.
"""

from rir_deploy.models.config import RiRConfig, Stage
from rir_deploy.models.presets import PRESETS, preset

__all__ = ["PRESETS", "RiRConfig", "Stage", "preset"]
