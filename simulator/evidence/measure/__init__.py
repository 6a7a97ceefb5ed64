"""Time on real hardware what the rest of this package predicts.

``cells`` lists what can be timed, ``grid`` chooses the cells of a run, ``predict`` predicts each
one; none of them imports torch. ``prepare`` turns cells into PyTorch calls, ``runner`` goes
through a grid and times them, and ``store`` keeps the rows. It can be interrupted at any moment.
"""
