"""The options of the commands that have many: their names, and what `--help` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Activations",
    "Bounds",
    "BundleFolder",
    "Constants",
    "Folder",
    "Host",
    "Inputs",
    "Json",
    "MaxTokens",
    "MinP",
    "ModelName",
    "OutputFile",
    "Port",
    "Prompt",
    "Quantize",
    "Raw",
    "Revision",
    "Seed",
    "System",
    "Targets",
    "Task",
    "Temperature",
    "Title",
    "TopK",
    "TopP",
]

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `build` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Port = Annotated[
    int,
    typer.Option(
        "--port", metavar="N", min=0, max=65535, help="Port to listen on; 0 takes a free one."
    ),
]
Host = Annotated[str, typer.Option("--host", metavar="NAME", help="Address to listen on.")]

# --- build ----------------------------------------------------------------------------------------

ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A file, a folder or a Hugging Face repo id."),
]
BundleFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where the bundle goes.")
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task", metavar="TASK", help="What the model is for. Default: what it looks like."
    ),
]
Quantize = Annotated[
    str,
    typer.Option(
        "--quantize", metavar="KIND", help="Weights in blocks of 8 or 4 bits: q8, q4. Or f32."
    ),
]
Activations = Annotated[
    str,
    typer.Option(
        "--activations",
        metavar="KIND",
        help="What products with quantised weights may round their inputs to: int16 (on a GPU "
        "float16, if it has that), int8 (the same, but on WebAssembly faster for prompts, less "
        "exact), or f32 (not at all).",
    ),
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        "--max",
        metavar="NAME=N",
        help="Upper bound of a symbolic dimension; repeatable. Of a language model, "
        "sequence=N is how many tokens a conversation may have.",
    ),
]
Targets = Annotated[
    str,
    typer.Option("--targets", metavar="LIST", help="What to compile for, separated by commas."),
]
Constants = Annotated[
    list[str] | None,
    typer.Option("--constant", metavar="NAME=VALUE", help="Fix an input to a value; repeatable."),
]
Title = Annotated[
    str | None,
    typer.Option("--title", metavar="TEXT", help="The page's title. Default: the model's name."),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision", metavar="NAME", help="Branch, tag or commit of a Hugging Face repo."
    ),
]

# --- run ------------------------------------------------------------------------------------------

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="What the task takes: an image, a text or a file of it, a .npz of arrays; "
        "or NAME=FILE.npy for one input by name (repeatable).",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", "-p", metavar="TEXT", help="What to say to a language model."),
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="Who the model is to be.")
]
Raw = Annotated[
    bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", metavar="N", help="Tokens of the answer at most."),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", metavar="T", help="0 to 2; 0: always the likeliest token."),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", metavar="N", help="Only the N likeliest tokens; 0: all."),
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", metavar="P", help="Only the likeliest that together have P."),
]
MinP = Annotated[
    float | None,
    typer.Option("--min-p", metavar="P", help="Only those P times as likely as the likeliest."),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="The same seed gives the same answer."),
]
OutputFile = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE.npz", help="Save raw outputs.")
]
