from tests.verify.trained import trained

__all__ = ["trained"]
