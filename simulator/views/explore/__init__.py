"""One offline page to explore a decode step, with sliders, menus and instant answers.

The page has no equations of its own. :mod:`~simulator.views.explore.symbol` records what the
functions of :mod:`simulator.counts` and :mod:`simulator.timing` compute;
:mod:`~simulator.views.explore.tape` packs the recording; :mod:`~simulator.views.explore.programs`
does so for every model, setting and GPU of the page's menus; and the page's script replays it. So
the page gives the answers of :func:`simulator.estimate`, up to rounding: see docs/commands.md.
"""
