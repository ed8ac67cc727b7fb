"""`infuse train`: one trainer for everything that learns. Every run resumes where it was cut off."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infuse.errors import RecipeError

if TYPE_CHECKING:
    from infuse.tabletop.judge import Judge

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
)

Threads = Annotated[int, typer.Option(help="CPU threads; 0 for all.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: faster where the CPU knows it.")]
Figures = Annotated[Path, typer.Option(help="JSON file for the figures; experiments already in it are kept.")]
FIGURES = Path("runs/scores.json")


@app.callback()
def main() -> None:
    """Train conditions, or the embedded models from nothing."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


@app.command()
def tabletop(
    out: Annotated[Path, typer.Option(help="Folder for renders, checkpoints and models.")] = Path("runs/tabletop"),
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; repeatable. All, in order, if left out.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Longest time for a stage; it goes on in the next run.")] = float(
        "inf"
    ),
    threads: Threads = 0,
) -> None:
    """Make the embedded models from nothing: autoencoder, UNet and text encoder, judge, adapters."""
    import torch

    from infuse.tabletop.making.stages import STAGES
    from infuse.tabletop.making.workshop import Workshop

    unknown = [s for s in stage or () if s not in STAGES]
    if unknown:
        raise RecipeError("--stage", f"there is no stage {unknown[0]!r}. Stages: {', '.join(STAGES)}.")
    if minutes <= 0 or threads < 0:
        raise RecipeError("--minutes" if minutes <= 0 else "--threads", "it must be positive.")
    if threads:
        torch.set_num_threads(threads)
    shop = Workshop(out, minutes)
    for name in stage or STAGES:
        logging.info("stage %s", name)
        if not STAGES[name](shop):
            logging.info("stage %s has steps left: run the same command again to go on", name)
            break


@app.command()
def powerpaint(
    model: Annotated[str, typer.Option(help="The base to start from: an SD 1.x of 4 or (v1) 9 input channels.")],
    data: Annotated[Path, typer.Option(help="Folder of pictures with a metadata.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the trained model.")],
    generation: Annotated[str, typer.Option(help="v1 (nine channels) or v2 (a BrushNet beside the base).")] = "v1",
    learn: Annotated[str, typer.Option(help="all, or tokens: the 30 rows of the task tokens alone.")] = "all",
    task: Annotated[
        list[str] | None,
        typer.Option(help="text, shape, removal, outpaint, picture; repeatable. Else all that the data can teach."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all, those before an interruption included.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in a step.")] = 4,
    size: Annotated[int, typer.Option(min=1, help="Pixels of the square crops.")] = 512,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 1e-5,
    warmup: Annotated[int, typer.Option(min=0, help="Steps until the learning rate is reached.")] = 500,
    ema: Annotated[
        float, typer.Option(min=0, max=1, help="Decay of a moving average of the weights; 0 for none.")
    ] = 0.0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; weights stay in float32.")] = False,
    original: Annotated[bool, typer.Option("--original", help="Grow silhouettes as the original's code does.")] = False,
    minutes: Annotated[float, typer.Option(help="Longest time; the same command goes on later.")] = float("inf"),
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; the GPU if there is one.")] = None,
) -> None:
    """Train PowerPaint's task tokens, and the network that hears them, on your own pictures."""
    from dataclasses import replace
    from typing import Any, get_args

    import torch

    from infuse.engine.model_store import ModelStore
    from infuse.training.powerpaint_folder import Lesson
    from infuse.training.powerpaint_run import PLAN, Run, train

    choices = (("--generation", [generation], ("v1", "v2")), ("--learn", [learn], ("all", "tokens")))
    for option, said, known in (*choices, ("--task", task or [], get_args(Lesson))):
        for one in said:
            if one not in known:
                raise RecipeError(option, f"there is no {one!r}. Choose from: {', '.join(known)}.")
    chosen: dict[str, Any] = {"generation": generation, "learn": learn, "lessons": tuple(task or ())}
    run = Run(model, str(data), **chosen, size=size, batch_size=batch_size, original=original)
    plan = replace(PLAN, steps=steps, lr=lr, warmup=warmup, ema=ema, bf16=bf16, max_minutes=minutes, seed=seed)
    done = train(run, out, plan, ModelStore(dtype=torch.float32, device=device))
    typer.echo(out)
    if not done:
        logging.info("steps are left: run the same command again to go on")


@app.command()
def video(
    model: Annotated[str, typer.Option(help="The base to start from: an SD 1.x or 2.x, or (stage 2) a video model.")],
    data: Annotated[Path, typer.Option(help="Folder of clips with a metadata.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the trained model.")],
    stage: Annotated[int, typer.Option(help="1: move by words. 2: hear VideoComposer's conditions, too.")] = 1,
    learn: Annotated[
        str,
        typer.Option(
            help="all; temporal: the temporal layers; attention: and the spatial self-attentions; new: (stage 2) the conditions' channels."
        ),
    ] = "all",
    learn_text: Annotated[bool, typer.Option("--learn-text", help="Train the text encoder, too.")] = False,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help="depth, motion, sketch, single_sketch, local_image, masked, style; repeatable. Else all that the data can teach."
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Of a clip; the base's own, or 16, if left out.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second to learn at; consecutive frames if left out.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all, those before an interruption included.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips in a step.")] = 1,
    size: Annotated[int, typer.Option(min=1, help="Pixels of the square clips.")] = 256,
    still: Annotated[float, typer.Option(min=0, max=1, help="Fraction of the batches that are pictures.")] = 0.25,
    silent: Annotated[str, typer.Option(help="Silent words and style: zeros, as the original, or empty.")] = "zeros",
    lr: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 5e-5,
    warmup: Annotated[int, typer.Option(min=0, help="Steps until the learning rate is reached.")] = 500,
    ema: Annotated[
        float, typer.Option(min=0, max=1, help="Decay of a moving average of the weights; 0 for none.")
    ] = 0.0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; weights stay in float32.")] = False,
    minutes: Annotated[float, typer.Option(help="Longest time; the same command goes on later.")] = float("inf"),
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; the GPU if there is one.")] = None,
) -> None:
    """Train a video model on your own clips: first words, then depth, sketches, motion, pictures, holes and style."""
    from dataclasses import replace
    from typing import Any

    import torch

    from infuse.engine.model_store import ModelStore
    from infuse.training.video_run import PLAN, Run, train

    choices = (
        ("--stage", stage, (1, 2)),
        ("--learn", learn, ("all", "attention", "temporal", "new")),
        ("--silent", silent, ("zeros", "empty")),
    )
    for option, one, known in choices:
        if one not in known:
            raise RecipeError(option, f"there is no {one!r}. Choose from: {', '.join(map(str, known))}.")
    chosen: dict[str, Any] = {"stage": stage, "learn": learn, "conditions": tuple(condition or ()), "silent": silent}
    run = Run(
        model, str(data), **chosen, learn_text=learn_text, frames=frames, fps=fps, size=size, batch_size=batch_size, still=still
    )  # fmt: skip
    plan = replace(PLAN, steps=steps, lr=lr, warmup=warmup, ema=ema, bf16=bf16, max_minutes=minutes, seed=seed)
    done = train(run, out, plan, ModelStore(dtype=torch.float32, device=device))
    typer.echo(out)
    if not done:
        logging.info("steps are left: run the same command again to go on")


@app.command()
def score(
    out: Figures = FIGURES,
    count: Annotated[int, typer.Option(min=1, help="Held-out prompts.")] = 512,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each picture.")] = 12,
    threads: Threads = 0,
) -> None:
    """Measure the embedded models with the judge: text, edges, image prompts, inpainting."""
    from infuse.engine.engine import Engine
    from infuse.tabletop.making import score as scoring
    from infuse.tabletop.making.scorer import Scorer

    judge = _judge(out, threads)
    scoring.score(Scorer(Engine("tabletop"), judge, count, steps, tell=logging.info), out)


@app.command()
def score_maps(
    out: Figures = FIGURES,
    count: Annotated[int, typer.Option(min=1, help="Held-out scenes.")] = 256,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each picture.")] = 12,
    threads: Threads = 0,
) -> None:
    """Measure edits, depth maps and segmentation with the judge."""
    from infuse.engine.engine import Engine
    from infuse.tabletop.making import score_maps as scoring
    from infuse.tabletop.making.scorer import Scorer

    judge = _judge(out, threads)
    scoring.score(Scorer(Engine("tabletop"), judge, count, steps, tell=logging.info), out)


@app.command()
def score_video(
    out: Figures = FIGURES,
    count: Annotated[int, typer.Option(min=1, help="Held-out moves.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each clip.")] = 12,
    bf16: Bf16 = False,
    threads: Threads = 0,
) -> None:
    """Measure the embedded video model with the judge: words, drawn motion, depth, first picture."""
    import torch

    from infuse.engine.engine import Engine
    from infuse.tabletop.making import score_video as scoring

    judge = _judge(out, threads)
    engine = Engine(scoring.MODEL, dtype=torch.bfloat16 if bf16 else None)
    scoring.score(scoring.ClipScorer(engine, judge, count, steps, tell=logging.info), out)


def _judge(out: Path, threads: int) -> Judge:
    """The embedded judge, once its threads and the folder of its figures are there."""
    import torch

    from infuse.tabletop.judge import Judge
    from infuse.weights.library import embedded_root

    if threads:
        torch.set_num_threads(threads)
    out.parent.mkdir(parents=True, exist_ok=True)
    return Judge.load(embedded_root() / "judge.safetensors")


@app.command()
def card(
    scores: Annotated[Path, typer.Option(help="What `infuse train score` wrote.")] = FIGURES,
) -> None:
    """Write the model card of the embedded models from their figures."""
    from infuse.tabletop.making.card import write
    from infuse.weights.library import embedded_root

    if not scores.is_file():
        raise RecipeError("--scores", f"there is no file {scores}. Run: infuse train score")
    typer.echo(write(embedded_root(), scores))
