"""What `run` and `check` can be told: each option is declared here once, under our name and those that others have for it.

A letter about what came from an option names the option as it was typed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer
from typer.core import TyperCommand

from infuse import spellings
from infuse.errors import RecipeError

if TYPE_CHECKING:
    from infuse.cli.recipe import Asked

TYPED = "infuse.typed"
"""Where a context keeps, for each parameter, the option that was typed."""


class Request(TyperCommand):
    """A command that knows how its options were spelled, and where infuse has what others call otherwise."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = self._typed(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            name = getattr(error, "option_name", None)  # click's NoSuchOption
            if not name or type(error).__name__ != "NoSuchOption":
                raise
            key = spellings.plain(name.strip("-"))
            if key in spellings.ELSEWHERE:
                raise RecipeError(name, spellings.ELSEWHERE[key]) from None
            known = {o.strip("-"): o for p in self.params for o in p.opts if o.startswith("--")}
            near = spellings.suggestion("", known, name.strip("-"))
            told = f"Did you mean {known[near]}? " if near else ""
            raise RecipeError(
                name,
                f"there is no such option. {told}`infuse {ctx.info_name} --help` lists all; fields without one are reached by --set.",
            ) from None

    def _typed(self, args: list[str]) -> dict[str, str]:
        """Parameter -> option, as far as options were typed."""
        by = {o: str(p.name) for p in self.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
        several = {p.name for p in self.params if p.multiple}
        found: dict[str, str] = {}
        for word in args:
            if word == "--":
                break
            name = word.split("=", 1)[0] if word.startswith("--") else word[:2]
            if name in by:
                before = found.setdefault(by[name], name)
                if before != name and by[name] not in several:
                    raise RecipeError(name, f"it means the same as {before}. Keep one of them.")
        return found


def _option(*names: str, help: str = "", metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar)


def request(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            help="A prompt; or a recipe (.yaml, .json), a picture or film that carries one, a folder/ of frames."
        ),
    ] = None,
    prompt: Annotated[
        str | None, _option("--prompt", "-p", help="The prompt, whatever it looks like; over the recipe's.")
    ] = None,
    model: Annotated[
        str | None,
        _option("--model", "-m", "--ckpt", "--checkpoint", help="A name, a path, or a Hub id; tabletop if nobody says."),
    ] = None,
    negative_prompt: Annotated[str | None, _option("--negative-prompt", "--negative", help="What is not to be seen.")] = None,
    width: Annotated[int | None, _option("--width", "-W", help="In pixels.")] = None,
    height: Annotated[int | None, _option("--height", "-H", help="In pixels.")] = None,
    size: Annotated[str | None, _option("--size", metavar="WxH", help="Both in one: 512x768.")] = None,
    frames: Annotated[int | None, _option("--frames", "--num-frames", help="Of a clip.")] = None,
    steps: Annotated[
        int | None, _option("--steps", "--num-inference-steps", "--sampling-steps", help="Steps of the sampler; 30.")
    ] = None,
    scheduler: Annotated[
        str | None, _option("--scheduler", help='A sampler by its name ("DPM++ 2M Karras"), or the schedule of --sampler.')
    ] = None,
    sampler: Annotated[
        str | None, _option("--sampler", "--sampler-name", help="A sampler, as the webui and ComfyUI spell them.")
    ] = None,
    vae: Annotated[
        str | None, _option("--vae", help="Decode and encode with this VAE: a folder, a file, or a model that has it.")
    ] = None,
    text_encoder: Annotated[
        str | None, _option("--text-encoder", help="Hear words through this (first) text encoder.")
    ] = None,
    guidance: Annotated[
        float | None,
        _option("--guidance", "--guidance-scale", "--cfg-scale", "--cfg", help="How strongly the prompt guides; 1: not."),
    ] = None,
    guidance_rescale: Annotated[float | None, _option("--guidance-rescale", "--rescale-cfg", help="0 to 1.")] = None,
    seed: Annotated[
        str | None, _option("--seed", "--seeds", "-s", help="A number, several (3,5,8), or random (-1).")
    ] = None,
    count: Annotated[
        int | None,
        _option("--count", "-n", "--num-images-per-prompt", "--batch-size", help="How many, each with the next seed."),
    ] = None,
    control: Annotated[
        list[str],
        _option("--control", "--controlnet", metavar="NAME=PICTURE[@WEIGHT]",
                help="A ControlNet and its map, or a photo to draw edges of. Repeatable."),
    ] = [],  # noqa: B006  typer copies
    ip: Annotated[
        list[str],
        _option("--ip", "--ip-adapter", metavar="[NAME=]PICTURE[@WEIGHT]",
                help="A picture as a prompt, for an IP-Adapter. Repeatable."),
    ] = [],  # noqa: B006
    init: Annotated[
        str | None,
        _option("--init", "--init-image", "--image", metavar="PICTURE[@STRENGTH]", help="Begin from this picture."),
    ] = None,
    inpaint: Annotated[
        tuple[str, str] | None, _option("--inpaint", metavar="PICTURE MASK", help="Repaint what is white in the mask.")
    ] = None,
    strength: Annotated[
        float | None,
        _option("--strength", "--denoising-strength", "--denoise", help="How much of --init or --inpaint is repainted."),
    ] = None,
    sets: Annotated[
        list[str],
        _option("--set", metavar="FIELD=VALUE", help="Any other field: conditions.0.weight=0.5. Repeatable."),
    ] = [],  # noqa: B006
    trust: Annotated[
        bool, typer.Option("--trust", help="A picture's recipe may name files and models of this machine.")
    ] = False,
    inputs: Annotated[
        list[Path], _option("--inputs", metavar="DIR", help="Where to find again what a picture names by hash. Repeatable.")
    ] = [],  # noqa: B006
    offline: Annotated[bool, typer.Option("--offline", help="Ask no network; as HF_HUB_OFFLINE=1.")] = False,
    device: Annotated[str | None, _option("--device", help="cpu, cuda, cuda:1, mps; the best there is.")] = None,
    dtype: Annotated[
        str | None, _option("--dtype", "--precision", help="auto, float32, fp16, bf16. auto: fp16 on a GPU, else bf16 where it pays.")
    ] = None,
    memory: Annotated[
        str | None, _option("--memory", metavar="BYTES", help="What loaded models may take: 8GB.")
    ] = None,
    out: Annotated[
        Path,
        _option("--out", "-o", "--output",
                help="A file (.png, .jpg, .webp; a clip: .mp4, .gif, .webp), or a folder: then the name is the recipe's digest."),
    ] = Path("out"),
    fps: Annotated[
        float | None, _option("--fps", help="Frames per second of a clip's file; 8, or those of the film that is run again.")
    ] = None,
    record: Annotated[
        Literal["full", "hashes", "none"],
        _option("--record", help="What a file says of its making: all that is needed, inputs by hash, nothing."),
    ] = "full",
    together: Annotated[
        bool,
        typer.Option("--together",
                     help="Pictures of --count in shared network calls: faster on a GPU, where the last bits depend on it."),
    ] = False,
) -> Asked:  # fmt: skip
    from infuse.cli.recipe import Asked, Machine, Written

    fields = {"prompt": prompt, "model": model, "negative_prompt": negative_prompt, "width": width, "height": height, "size": size,
              "frames": frames, "steps": steps, "scheduler": scheduler, "sampler": sampler, "vae": vae, "text_encoder": text_encoder, "guidance": guidance,
              "guidance_rescale": guidance_rescale, "seed": seed, "count": count}  # fmt: skip
    return Asked(source, fields, control, ip, init, inpaint, sets, strength, trust, tuple(inputs), ctx.meta.get(TYPED, {}),
                 Machine(device, dtype, memory, offline or None), Written(out, fps, record, together))  # fmt: skip


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """A command that is given one `Asked` gets all options of a request, before those of its own."""
    (_, *own), shared = inspect.signature(command).parameters.values(), inspect.signature(request).parameters
    hints = {
        **get_type_hints(request, include_extras=True, localns={"Asked": Any}),
        **get_type_hints(command, include_extras=True),
    }

    @wraps(command)
    def asked(**words: Any) -> None:
        said = request(**{name: words.pop(name) for name in shared})
        command(said, **words)

    parameters = [p.replace(annotation=hints[p.name]) for p in (*shared.values(), *own)]
    asked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    asked.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    del asked.__wrapped__  # whoever looks through it would see the command alone
    return asked
