"""The parity proof: is the candidate the model that the reference is?"""

from rir_deploy.verify.gate import VerifyResult, verify
from rir_deploy.verify.outputs import Tolerance
from rir_deploy.verify.presets import GATES, Gate

__all__ = ["GATES", "Gate", "Tolerance", "VerifyResult", "verify"]
