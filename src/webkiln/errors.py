"""Errors that a user can act on: a message that names the thing, a hint that says what to try.

Everything webkiln raises on purpose derives from `WebkilnError`. The command line prints it as one
message without a traceback and exits with the class's `exit_code`; a program catches the class.
"""

from __future__ import annotations

__all__ = [
    "ChatTemplateError",
    "CheckFailedError",
    "ContextFullError",
    "InputError",
    "InternalError",
    "InvalidModelError",
    "MissingDependencyError",
    "ModelNotFoundError",
    "OutputFolderError",
    "PortInUseError",
    "PromptTooLongError",
    "ShardError",
    "ToolchainError",
    "UnboundedDimensionError",
    "UnsupportedModelError",
    "WebkilnError",
]


class WebkilnError(Exception):
    """Base of every error raised on purpose.

    `message` names the thing and the reason; `hint` says what to try, or is None.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\ntry: {self.hint}"


class ModelNotFoundError(WebkilnError):
    """No such file, folder or Hugging Face repository."""


class InvalidModelError(WebkilnError):
    """The file is not a model, is truncated, or lacks its external data."""


class UnsupportedModelError(WebkilnError):
    """The model uses operators, types or shapes that webkiln cannot compile; all are listed."""

    exit_code = 3


class UnboundedDimensionError(WebkilnError):
    """A symbolic dimension has no upper bound."""


class InputError(WebkilnError):
    """A wrong input or option: name, dtype, shape or value."""


class PromptTooLongError(InputError):
    """A prompt has more tokens than the model can read at once."""


class ContextFullError(InputError):
    """A conversation has become longer than the model can keep in mind."""


class ChatTemplateError(InputError):
    """The model's chat template is broken, or refuses a conversation."""


class OutputFolderError(WebkilnError):
    """The output folder holds something that webkiln did not write, or cannot be written."""


class ShardError(WebkilnError):
    """A file of a bundle is missing, truncated, or fails its hash."""


class ToolchainError(WebkilnError):
    """The C compiler failed or is missing."""

    exit_code = 1


class InternalError(WebkilnError):
    """webkiln broke a law of its own intermediate form: a bug of webkiln, never of the model."""

    exit_code = 1


class PortInUseError(WebkilnError):
    """The port that the server should listen on is taken."""


class MissingDependencyError(WebkilnError):
    """An optional package, an asset or a program that this command needs is not installed."""


class CheckFailedError(WebkilnError):
    """A bundle's outputs differ from the reference by more than the tolerance."""

    exit_code = 1
