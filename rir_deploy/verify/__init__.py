"""The parity proof: is the candidate the model that the reference is?"""

from rir_deploy.verify.gate import GATES, Gate, VerifyResult, verify
from rir_deploy.verify.outputs import Tolerance

__all__ = ["GATES", "Gate", "Tolerance", "VerifyResult", "verify"]
