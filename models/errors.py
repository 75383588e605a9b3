"""What can go wrong in models/, one line of meaning each."""

from __future__ import annotations


class ModelsError(Exception):
    """Base of the errors of models/; the message says what was found, what is needed and which knob to turn."""


class SnapshotUnreadable(ModelsError):
    """A snapshot is not what its manifest says."""


class ColumnsWrong(ModelsError):
    """Encoded columns do not fit the feature template."""


class BundleDamaged(ModelsError):
    """A bundle is incomplete, or its bytes are not the ones that were saved."""


class TrainingFailed(ModelsError):
    """Training ended without a model. `trace` is the traceback of the rank that failed first, where there is one."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class RanksLost(TrainingFailed):
    """A rank was killed, stopped or late: another try goes on from the newest checkpoint."""


class SlotsMissing(TrainingFailed):
    """Fewer tasks can run at once than training.ranks asks for."""


class PeerLost(ModelsError):
    """An exchange failed: another rank is gone, or did not come to it in time."""
