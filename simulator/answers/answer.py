"""What every answer can do in Python: be printed, shown in a notebook, and made a frame."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class Answer:
    """An answer that shows itself, printed and in a notebook, and becomes a frame.

    How answers look is known two floors above, in :mod:`simulator.views.notebook`, which is found
    by name when somebody looks: no answer depends on it.
    """

    def to_frame(self) -> "pd.DataFrame":
        """Return the answer as a frame, with the columns of the command's CSV."""
        frame: pd.DataFrame = _notebook().frame_of(self)
        return frame

    def __str__(self) -> str:
        """Return the answer as the terminal shows it, without colours."""
        text: str = _notebook().text_of(self)
        return text

    def _repr_html_(self) -> str:
        """Return the answer as the terminal shows it, for Jupyter."""
        html: str = _notebook().html_of(self)
        return html


def _notebook() -> Any:
    """Return the module that shows answers."""
    return import_module("simulator.views.notebook")
