"""The Hub, politely: the local cache first, the network only when allowed, and only the files that infuse reads."""

from __future__ import annotations

import os
import re
from pathlib import Path

from infuse.errors import WeightsError
from infuse.weights.formats import PICKLES, SUFFIXES
from infuse.weights.layouts import video_release
from infuse.weights.layouts.powerpaint import ENCODERS, FOLDERS, is_v1

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "image_encoder",
              "feature_extractor", "composer")  # fmt: skip
SMALL = (".json", ".txt", ".model")


def is_offline(asked: bool | None = None) -> bool:
    """What the caller said, else the environment's HF_HUB_OFFLINE, asked now and not at import."""
    if asked is not None:
        return asked
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def split_id(model: str) -> tuple[str, str]:
    """`owner/name/sub/file.safetensors` -> (`owner/name`, `sub/file.safetensors`); a revision stays with the repository.

    `owner/name@fp16/unet` -> (`owner/name@fp16`, `unet`). Revisions with a slash are those of the Hub's own: `@refs/pr/3`.
    """
    m = HUB_ID.fullmatch(model.strip("/"))
    assert m, "asked by `is_id` before"
    return m[1], m[2] or ""


HUB_ID = re.compile(r"([\w.-]+/[\w.-]+(?:@(?:refs/[\w.-]+/)?[\w.-]+)?)(?:/([\w.\- /]+))?")


def is_id(name: str) -> bool:
    """`owner/name...`; but `folder/model.safetensors` is a path, also when nothing is there."""
    m = HUB_ID.fullmatch(name.strip("/"))
    return bool(m) and not name.startswith((".", "/")) and not m[1].endswith(SUFFIXES)


def at_revision(repo: str) -> tuple[str, str | None]:
    """`owner/name@fp16` -> (`owner/name`, `fp16`)."""
    name, _, revision = repo.partition("@")
    return name, revision or None


def command(repo: str) -> str:
    """What fetches it where there is a network."""
    name, revision = at_revision(repo)
    return f"hf download {name}" + (f" --revision {revision}" if revision else "")


def needed(files: list[str], sub: str = "") -> list[str]:
    """Which of a repository's files to take: configs, tokenizers and one set of weights for each component.

    `sub` is a folder or file inside; safetensors before pickles, full precision before variants, never both. With
    an IP-Adapter, the image encoder that is released beside it. Of PowerPaint's releases: v1's two components, or v2's
    BrushNet with its task encoder and its base. Of a video release: its newest UNet, the file with the VAE, and OpenCLIP.
    """
    if not sub and "model_index.json" not in files and (loose := video_release.needed(files)):
        return loose
    tops = sorted({f.partition("/")[0] for f in files if "/" in f})
    if not sub and any(top in FOLDERS for top in tops):
        whole = [top for top in tops if top in (*FOLDERS, "text_encoder") or f"{top}/model_index.json" in files]
        return [f for top in whole for f in needed(files, top)]
    if sub in files:
        folder = sub.rpartition("/")[0]
        beside = f"{folder}/config.json".lstrip("/")
        eye = (
            "models/image_encoder" if "vit-h" in sub.lower() else f"{folder}/image_encoder"
        )  # as h94/IP-Adapter has them
        eyes = needed(files, eye) if folder and any(f.startswith(f"{eye}/") for f in files) else []
        return [sub, *([beside] if beside in files else []), *eyes]
    inside = [f for f in files if not sub or f.startswith(f"{sub}/")]
    base = f"{sub}/" if sub else ""
    pipeline = f"{base}model_index.json" in inside
    bare = not pipeline and not _one_set([f for f in inside if "/" not in f[len(base) :]])
    two = bare and all(any(f.startswith(f"{base}{c}/") for f in files) for c in ("unet", "text_encoder"))
    folders = [f"{base}{c}/" for c in COMPONENTS] if pipeline or two else [base]
    found = [f"{base}model_index.json"] if pipeline else []
    for folder in folders:
        here = [f for f in inside if f.startswith(folder) and "/" not in f[len(folder) :]]
        found += [f for f in here if f.endswith(SMALL) and ".index." not in f]
        found += _one_set([f for f in here if f not in found])
        if folder.strip("/") in FOLDERS:
            found += [f for f in here if f.rpartition("/")[2] == ENCODERS[0]]
    return found


def _one_set(here: list[str]) -> list[str]:
    for suffix in (".safetensors", *PICKLES):
        stems = ("diffusion_pytorch_model", "model", "pytorch_model")
        mine = [f for f in here if f.endswith(suffix) and f.rpartition("/")[2].startswith(stems)]
        only = [f for f in here if f.endswith(suffix)]
        mine = mine or (only if len(only) == 1 else [])  # a store of models: the user has to choose
        plain = [f for f in mine if "." not in f.rpartition("/")[2].removesuffix(suffix)] or mine
        shards = [f for f in plain if "-of-" in f]
        if shards and len(shards) == len(plain):
            return [*shards, *(f for f in here if ".index." in f and suffix in f)]
        whole = [f for f in plain if "-of-" not in f]
        if whole:
            return [min(whole, key=lambda f: (len(f), f))]
    return []


def cached(repo: str, sub: str) -> Path | None:
    """Path in the local Hub cache of a file, a folder or (empty `sub`) the whole snapshot, if it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        name, revision = at_revision(repo)
        root = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError, ValueError):
        return None
    path = root / sub if sub else root
    if path.is_file() or (path.is_dir() and complete(path)):
        return path
    return None


def held(model: str) -> Path | None:
    """`cached` of a name, without asking anything of the Hub's cache unless it has a folder for it."""
    from huggingface_hub import constants

    repo, sub = split_id(model)
    folder = Path(constants.HF_HUB_CACHE) / f"models--{at_revision(repo)[0].replace('/', '--')}"
    return cached(repo, sub) if folder.is_dir() else None


def complete(folder: Path) -> bool:
    """Do the components that model_index.json names lie there? A download may have been interrupted.

    PowerPaint's releases have none: v1 is two components, v2 a folder beside a pipeline. Nor has a video release.
    """
    from infuse.weights.source import read_json, weights_of

    try:
        if not (folder / "model_index.json").is_file():
            inside = [p for p in folder.iterdir() if (p / "model_index.json").is_file()]
            if release := video_release.release_at(folder):
                return release.vae is not None and release.clip is not None
            return is_v1(folder) or any(complete(p) for p in inside) or bool(weights_of(folder))
        parts = [
            k
            for k, v in read_json(folder / "model_index.json").items()
            if k in COMPONENTS and isinstance(v, list) and v[-1]
        ]
        weighty = ("unet", "vae", "text_encoder", "text_encoder_2", "image_encoder")
        return all((folder / p).is_dir() and (p not in weighty or weights_of(folder / p)) for p in parts)
    except WeightsError:
        return False


def download(repo: str, sub: str, field: str) -> Path:
    """Fetch what `needed` names into the Hub cache. Raises WeightsError with the Hub's answer in plain words."""
    from huggingface_hub import HfApi, constants, get_session, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name, revision = at_revision(repo)
    try:
        get_session().head(
            constants.ENDPOINT, timeout=10
        )  # one knock: the Hub's own client would retry for half a minute
        files = HfApi().list_repo_files(name, revision=revision)
        wanted = needed(files, sub)
        if not any(not f.endswith(SMALL) for f in wanted):
            offered = ", ".join(f for f in files if f.endswith((".safetensors", *PICKLES))) or "none"
            raise WeightsError(
                field, f'"{repo}/{sub}" holds no weights there. Weights in this repository: {offered[:500]}.'
            )
        root = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except GatedRepoError as e:
        raise WeightsError(field, f'"{repo}" asks for its licence to be accepted: open https://huggingface.co/{name}, accept '
                                  "it, then run `hf auth login` here.") from e  # fmt: skip
    except RevisionNotFoundError as e:
        raise WeightsError(field, f'"{name}" has no revision "{revision}" on the Hub. Its page lists branches and tags; leave the revision '
                                  "out for the newest.") from e  # fmt: skip
    except RepositoryNotFoundError as e:
        raise WeightsError(field, f'there is no file or folder "{repo}" here, and the Hub has no public model of this name. Check the '
                                  "spelling, or run `hf auth login` if it is private.") from e  # fmt: skip
    except WeightsError:
        raise
    except Exception as e:  # the client's transport (requests, httpx, ...) and its exceptions change with its version
        raise WeightsError(field, f'there is no file or folder "{repo}" here. As the name of a model on the Hub it is not in the local cache '
                                  f"and the Hub did not answer ({type(e).__name__}). Check the path or the connection.") from e  # fmt: skip
    return root / sub if sub else root
