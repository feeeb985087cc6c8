"""Models by their Hugging Face repository id, through `huggingface_hub`.

The library's own settings hold: ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``, ``HF_HOME`` and
its cache, so that a model is downloaded once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from webkiln.errors import InvalidModelError, ModelNotFoundError
from webkiln.frontends.source import Source

__all__ = ["choose_files", "load_repo"]

Progress = Callable[[str, float | None], None]

# Small files that say what the model is and how it is used.
_SMALL = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "preprocessor_config.json", "modules.json", "sentence_bert_config.json", "labels.txt",
    "labels.json", "README.md", "generation_config.json", "chat_template.jinja",
    "chat_template.json", "genai_config.json",
)  # fmt: skip
_WEIGHT_SUFFIXES = (".safetensors", ".onnx", ".bin", ".pth")


def load_repo(
    repo: str,
    *,
    revision: str | None = None,
    context: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Downloads what is needed of `repo` (``owner/name``) into the cache, and loads that.

    `revision` is a branch, a tag or a commit, `context` how many tokens a language model's cache
    holds. `progress(what, fraction)` is called as files arrive.
    Raises `ModelNotFoundError` if there is no such repository or revision, if it is gated, or if it
    is not in the cache while offline.
    """
    from huggingface_hub import constants

    from webkiln.frontends.folder import load_folder

    folder = _download(repo, revision, progress)
    source = load_folder(folder, context)
    source.name = repo.rpartition("/")[2]
    source.provenance["origin"] = f"{constants.ENDPOINT}/{repo}"
    source.provenance["revision"] = folder.name  # snapshots are kept by commit
    return source


def choose_files(names: list[str]) -> list[str]:
    """Which files of a repository are worth downloading: one form of the weights, not all.

    safetensors come before ONNX and that before pickled weights, as a folder's are taken.
    """
    present = set(names)
    chosen = [name for name in names if name in _SMALL or name.endswith("_Pooling/config.json")]
    safetensors = [n for n in names if "/" not in n and n.endswith(".safetensors")]
    onnx = [n for n in names if n in ("model.onnx", "onnx/model.onnx")]
    onnx = onnx or [n for n in names if n.endswith(".onnx") and n.count("/") == 0]
    if "model.safetensors" in present:
        weights = ["model.safetensors"]
    elif "model.safetensors.index.json" in present:
        weights = ["model.safetensors.index.json", *safetensors]
    elif onnx:
        # External data is named after the model by every exporter: model.onnx_data, model.onnx.data
        weights = [n for n in names if any(n.startswith(model) for model in onnx)]
    else:
        weights = [n for n in names if n == "pytorch_model.bin" or n.endswith(".pth")]
    return chosen + weights


def _download(repo: str, revision: str | None, progress: Progress | None) -> Path:
    """The snapshot's folder in the cache, with the chosen files in it."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client

    if constants.HF_HUB_OFFLINE:
        return _cached(repo, revision, "HF_HUB_OFFLINE is set")
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        names = choose_files(list(sizes))
        if not any(name.endswith(_WEIGHT_SUFFIXES) for name in names):
            raise InvalidModelError(
                f"the repository {repo} has no weights in a form that is read here",
                hint="it should have model.safetensors or an .onnx file",
            )
        total = sum(sizes[name] for name in names)
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=names,
                max_workers=2,
                tqdm_class=_progress_bar(repo, total, progress),
            )
        )
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError(
            f"the repository {repo} has no revision {revision!r}", hint="see its list of branches"
        ) from None
    except errors.GatedRepoError:
        raise ModelNotFoundError(
            f"the repository {repo} is gated: its licence must be accepted first",
            hint=f"accept it at {constants.ENDPOINT}/{repo}, then: hf auth login",
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"no file, folder or Hugging Face repository called {repo}",
            hint="check the spelling; for a private repository: hf auth login",
        ) from None
    except (HTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return _cached(repo, revision, reason)


def _cached(repo: str, revision: str | None, reason: str) -> Path:
    """The snapshot that an earlier download left; `reason` is why there can be no new one."""
    from huggingface_hub import constants, errors, snapshot_download

    try:
        # Only some of the repository's files were wanted, so it can't be asked for as a whole.
        return Path(
            snapshot_download(
                repo, revision=revision, local_files_only=True, allow_patterns=["config.json"]
            )
        )
    except errors.LocalEntryNotFoundError:
        raise ModelNotFoundError(
            f"the repository {repo} cannot be downloaded from {constants.ENDPOINT} ({reason}) and "
            "is not in the cache",
            hint="check the connection, or give a local folder",
        ) from None


def _progress_bar(repo: str, total: int, progress: Progress | None) -> type[Any]:
    """A progress bar that draws nothing and reports the bytes of all files together."""
    from huggingface_hub.utils.tqdm import tqdm

    done = 0

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal done
            if self._counts_bytes and progress is not None:
                done += int(n or 0)
                progress(repo, min(done / total, 1.0) if total else None)
            return None

    return Bar
