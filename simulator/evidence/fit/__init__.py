"""Fit the constants of the timing model to measured rows."""
