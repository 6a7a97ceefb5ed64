"""Measured rows: their kinds, how to read them, and which are implausible."""
