"""Draw the picture at the top of the README. Run it as a script."""

from pathlib import Path

from matplotlib.figure import Figure

from trainplan import schedules as s

HORIZON = 10_000
SCHEDULES = {
    "cosine": s.cosine(1.0, "10%", warmup="2%"),
    "linear": s.linear(1.0, warmup="2%"),
    "wsd, 1-sqrt": s.wsd(1.0, "2%", "20%", "1-sqrt", 0.0),
    "wsd_s, two checkpoints": s.wsd_s(1.0, [("40%", "50%"), ("90%", "100%")], warmup="2%"),
    "rex": s.rex(1.0, warmup="2%"),
    "infinite": s.infinite(1.0, warmup="2%"),
    "cyclic_cosine": s.cyclic_cosine(1.0, 3, warmup="2%"),
    "damped_cosine, three waves": s.damped_cosine(1.0, cycles=3, warmup="2%"),
}
COLOURS = ["#3457d5", "#d1495b", "#2a9d8f", "#e07a1f", "#7b5ea7", "#5f6f7a", "#b5892a", "#d0679d"]


def main() -> None:
    """Draw every schedule into its own small axes."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True).flat
    for ax, colour, (name, schedule) in zip(axes, COLOURS, SCHEDULES.items(), strict=True):
        schedule.plot(HORIZON, ax=ax, color=colour, linewidth=2)
        ax.set_title(name, fontsize=10, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xticks([0, HORIZON // 2, HORIZON], ["0", "half", "end"])
        ax.set_yticks([0, 1], ["0", "peak"])
        ax.grid(alpha=0.2)
    figure.savefig(Path(__file__).parents[1] / "images" / "schedules.png", dpi=110)


if __name__ == "__main__":
    main()
