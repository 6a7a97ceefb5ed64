"""One offline page in which a decode step is explored: sliders, menus, and answers at once.

The page has no equations of its own. :mod:`~simulator.views.explore.symbol` lets the functions of
:mod:`simulator.counts` and :mod:`simulator.timing` write down what they compute;
:mod:`~simulator.views.explore.tape` packs that; :mod:`~simulator.views.explore.programs` does it
for every model, setting and GPU of the page's menus; and the page's script follows it step by step.
So the page answers what :func:`simulator.estimate` answers, to rounding: see docs/commands.md.
"""
