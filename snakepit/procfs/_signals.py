"""`signal` without its enums, which take a third of the time in which the guardian starts."""

TYPE_CHECKING = False  # that of `typing` costs as much again
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["signal"]
