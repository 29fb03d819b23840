"""Bring a trained ResNet in ResNet to NVIDIA edge hardware.

Importing this package loads neither torch nor any runtime; each stage imports what it needs when it is called.
"""

__version__ = "0.1.0"
