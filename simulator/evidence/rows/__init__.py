"""Measured rows: the kinds there are, reading them, and which are implausible."""
