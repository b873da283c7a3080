"""Training on the decoupled denoising objective runs away, while log p(x) stays where it is.

The model is that of counterexamples/bernoulli.py with q(z=1|x~=0) = sigmoid(theta) and q(z=1|x~=1) = sigmoid(-theta),
and theta is learnt by gradient ascent. The decoupled objective rewards an encoder for the log-density of another x~
than its own, so theta grows without bound and the objective with it, far above log p(x) = 0. The coupled one,
started at the same place, converges to 0.

    python counterexamples/blow_up.py [--plot FILE]
"""

from __future__ import annotations

import argparse

import torch

START, STEP, STEPS, SHOWN = 2.0, 0.5, 40, 4


def objective(theta: torch.Tensor, coupled: bool) -> torch.Tensor:
    """E[log p(x,z) - log q(z|x~)] in nats, z drawn from q(.|x~_0), where x~ = x~_0 if coupled, else another coin."""
    signs = torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=theta.dtype)
    log_q = torch.nn.functional.logsigmoid(signs * theta)  # log q(z|x~), a row for each x~
    log_p = torch.tensor(0.5, dtype=theta.dtype).log()  # log p(x,z), for either z
    log_w = log_p - log_q
    weights = log_q.exp() / 2  # c(x~_0) q(z|x~_0)
    if coupled:
        return (weights * log_w).sum()
    return (weights.sum(dim=0) * log_w.mean(dim=0)).sum()


def ascend(coupled: bool) -> list[tuple[int, float, float]]:
    """(step, theta, objective) along gradient ascent."""
    theta = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    path = []
    for step in range(STEPS + 1):
        value = objective(theta, coupled)
        path.append((step, theta.item(), value.item()))
        (gradient,) = torch.autograd.grad(value, theta)
        with torch.no_grad():
            theta += STEP * gradient
    return path


def draw(paths: dict[str, list[tuple[int, float, float]]], file: str) -> None:
    from matplotlib.figure import Figure

    from boundcheck.reproduce.bernoulli import save_figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (name, path), colour in zip(paths.items(), ("#c1272d", "#0072b2"), strict=True):
        axes.plot([step for step, _, _ in path], [value for _, _, value in path], color=colour, label=f"L, {name}")
    axes.axhline(0, color="black", linewidth=1.2, linestyle="--", label="log p(x)")
    axes.set_xlabel("step of gradient ascent on the encoder")
    axes.set_ylabel("nats")
    axes.set_title("Ascent on the decoupled objective runs away from log p(x)", fontsize=10.5)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Gradient ascent on both readings of the denoising objective.")
    parser.add_argument("--plot", metavar="FILE", help="draw both paths")
    options = parser.parse_args()

    paths = {"decoupled": ascend(coupled=False), "coupled": ascend(coupled=True)}
    print(f"{'':6}{'decoupled':>21}{'coupled':>23}{'log p(x)':>12}")
    print(f"{'step':>6}" + 2 * f"{'theta':>12}{'L':>11}")
    for number in range(0, STEPS + 1, SHOWN):
        cells = [
            f"{theta:>12.4f}{round(value, 6) + 0.0:>11.6f}" for _, theta, value in (p[number] for p in paths.values())
        ]
        print(f"{number:>6}{''.join(cells)}{0:>12}")
    if options.plot:
        draw(paths, options.plot)


if __name__ == "__main__":
    main()
