"""Helpers for ONNX graphs that every stage may import: running them, comparing them, and bringing them to one form."""
