"""Time on real hardware what the rest of this package predicts.

``cells`` says what can be timed, ``grid`` which cells a run has, ``predict`` what each should take;
none of them imports torch. ``prepare`` turns cells into PyTorch calls, ``timing`` times them,
``store`` keeps the rows, and ``runner`` goes through a grid and can be interrupted at any moment.
"""
