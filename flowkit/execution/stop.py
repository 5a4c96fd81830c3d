"""How a run is asked to end before its end."""

from __future__ import annotations

import threading

from flowkit.errors import Interrupted


class Stop:
    """Lets a signal handler, or another thread, end a run at its next step.

    Parameters
    ----------
    command : str
        What the message calls the run.
    resumes : bool
        Whether the run commits parts and goes on from them; else it writes nothing before its end.
    """

    def __init__(self, command: str = "extract", *, resumes: bool = True) -> None:
        self._command, self._resumes = command, resumes
        self._event = threading.Event()
        self._reason: type[Interrupted] = Interrupted

    def request(self, reason: type[Interrupted] = Interrupted) -> None:
        """Ask for the end."""
        self._reason = reason
        self._event.set()

    def check(self) -> None:
        """Raise if the end was asked for.

        Raises
        ------
        Interrupted
        """
        if self._event.is_set():
            left = (
                "what was committed stays. Run the same command again to go on."
                if self._resumes
                else "nothing was written. Run the same command again to begin anew."
            )
            raise self._reason(f"{self._command}: run was stopped before its end; {left}")
