"""The errors that this project raises on purpose.

Each carries one line: where (file and line, or byte offset), what was found,
what was expected, and what to do. The command line prints that line and
nothing else.
"""

from __future__ import annotations


class DarknetError(Exception):
    """Base of every error that bad input can cause. ``str(error)`` is one line."""


class CfgError(DarknetError):
    """A .cfg text that does not describe a network."""


class CfgWarning(UserWarning):
    """A .cfg line that Darknet reads past in silence: an unknown option, a repeated key."""


class WeightsError(DarknetError):
    """A .weights file that cannot be read or written."""


class WeightsHeaderError(WeightsError):
    """The first bytes are no .weights header."""


class WeightsEndError(WeightsError):
    """The file ends inside a layer."""


class WeightsLeftoverError(WeightsError):
    """Bytes are left over after the last layer."""


class WeightsValueError(WeightsError):
    """A number is NaN or infinite."""


class ExportError(DarknetError):
    """A network that cannot be written to, or read back from, another format; an engine that cannot run it."""


class ImageError(DarknetError):
    """An image that cannot be read or written."""


class VideoError(DarknetError):
    """A video that cannot be read or written, or that cannot be shown."""


class DataError(DarknetError):
    """A .data, names, list or label file that cannot be used."""


class ResultsError(DarknetError):
    """A result or annotation file that cannot be scored."""


class DeviceError(DarknetError):
    """A device that this machine does not have, or that torch cannot use."""


class TrainingError(DarknetError):
    """Training that cannot start, or that had to stop."""


class ProcessError(DarknetError):
    """Several processes that cannot be started together."""


class LostProcessError(TrainingError):
    """A process died that loads images, or that works beside this one. What is done so far is good."""


class ToldError(TrainingError):
    """What another process of this job says already."""


def first_line(error: BaseException) -> str:
    """What another library's ``error`` says, cut to its first line; its name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]
