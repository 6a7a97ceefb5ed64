"""What every answer can do in Python: be printed, shown in a notebook, and made a frame."""

from importlib import import_module
from typing import Any

from simulator.numeric import Frame


class Answer:
    """An answer that shows itself, printed and in a notebook, and becomes a frame.

    How answers look is known two floors above, in :mod:`simulator.views.forms`, which is found
    by name when somebody looks: no answer depends on it. An answer equals only itself.
    """

    def to_frame(self) -> Frame:
        """Return the answer as a frame, with the columns of the command's CSV."""
        frame: Frame = _forms().frame_of(self)
        return frame

    def __repr__(self) -> str:
        """Return a line: all that an answer rests on would fill pages."""
        return f"<{type(self).__name__}: print it, or take its figures with .to_frame()>"

    def __str__(self) -> str:
        """Return the answer as the terminal shows it, without colours."""
        text: str = _forms().text_of(self)
        return text

    def _repr_html_(self) -> str:
        """Return the answer as the terminal shows it, for Jupyter."""
        html: str = _forms().html_of(self)
        return html


def _forms() -> Any:
    """Return the module that shows answers."""
    return import_module("simulator.views.forms")
