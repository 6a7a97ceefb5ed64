"""Predict measured rows, and compare."""
