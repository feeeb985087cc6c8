"""Text generation on this machine: what runtime/src/tasks/generation is in the browser.

A bundle's programs compute the next token; this package turns prompts and conversations into ids,
chooses tokens where the bundle has no sampler of its own, and gives text as it grows.
"""

from webkiln.generation.answer import Answer, Chat, Options, Usage
from webkiln.generation.model import CausalModel, Prompt
from webkiln.generation.sampling import Sampling
from webkiln.generation.template import ChatTemplate, Message

__all__ = [
    "Answer",
    "CausalModel",
    "Chat",
    "ChatTemplate",
    "Message",
    "Options",
    "Prompt",
    "Sampling",
    "Usage",
]
