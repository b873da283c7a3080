"""`python -m boundcheck.demo`: see `boundcheck.demo.run`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
from rich.console import Console

from boundcheck.demo.run import run
from boundcheck.errors import BoundcheckError


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("boundcheck-demo"), show_default=True,
              help="Folder for weights, data, cards and the picture.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--quick", is_flag=True, help="A few epochs and weights only, to see that it runs.")
def main(out: Path, seed: int, quick: bool) -> None:
    """Train two small models on scikit-learn's digits and check their objectives against the evidence."""
    console = Console()
    try:
        run(out, seed=seed, quick=quick, console=console)
    except BoundcheckError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    model = f"{Path(__file__).with_name('digits_vae.py')}:vae"
    files = ["--weights", str(out / "vae.safetensors"), "--data", str(out / "digits_test.npz")]
    command = ["boundcheck", "evaluate", model, *files, "--objective", "denoising_decoupled", "--report", "card.html"]
    click.echo(f"Saved in {out}: open vae.html and dvae.html for the cards with plots and images.")
    click.echo(f"To evaluate a file by yourself:\n  {shlex.join(command)}")


if __name__ == "__main__":
    main()
