"""Figures: each a pure function from a tidy frame to a Plotly figure, all in one style."""
