"""What people's trainers write down, read into one form: named series of (step, value)."""

from trainplan.laws.readers.detect import read

__all__ = ["read"]
