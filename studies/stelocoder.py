"""SteloCoder (Pan et al., 2023): snippets first, then programs, with falling rates?

Lines in five dialects are rewritten into one language, letter by letter. A snippet is one line, a
program is four to eight, whose variables get new names in the order in which they come.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import trainplan as tp
from trainplan.data import BatchSampler, Phase, PhaseCurriculum, Shuffle, completion_labels
from trainplan.lab import Claim, Study, Tuned
from trainplan.models import Decoder, ExpertGate

FORMS = ("{v}={w}+{d};", "${v}:{w},{d}", "let {v} {w} {d}", "{d}>{w}>{v}", "({v} {d} {w})")
LETTERS = "\0#|abcdefgh0123456789xyzuvw=+;$:, lt>()\ne"
CODE = np.zeros(128, np.int64)
CODE[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(len(LETTERS))


def translation(lines: int, dialect: int, random) -> tuple[str, str]:
    """A program in a dialect, and in the language."""
    known: dict[str, str] = {}
    source, target = [], []
    letters, digits = random.integers(6, size=(lines, 2)), random.integers(10, size=lines)
    for (a, b), d in zip(letters.tolist(), digits.tolist(), strict=True):
        v, w = "abcdef"[a], "abcdef"[b]
        source.append(FORMS[dialect].format(v=v, w=w, d=d))
        x, y = (known.setdefault(name, "xyzuvw-"[len(known)]) for name in (v, w))
        target.append(f"{x}={y}+{d}")
    return "\n".join(source) + "|", "\n".join(target) + "#"


def texts(number: int, low: int, high: int, random):
    """Tokens (B, T), labels (B, T), prompts' lengths, whole lengths, dialects."""
    dialects = random.integers(5, size=number)
    lines = random.integers(low, high + 1, size=number)
    both = [translation(n, k, random) for n, k in zip(lines, dialects, strict=True)]
    prompts = np.array([len(source) for source, _ in both])
    lengths = prompts + [len(target) for _, target in both]
    tokens = np.zeros((number, lengths.max()), np.int64)
    for row, (source, target) in enumerate(both):
        tokens[row, : lengths[row]] = CODE[np.frombuffer((source + target).encode(), np.uint8)]
    return tokens, completion_labels(tokens, prompts, lengths), prompts, lengths, dialects


def train(model, source, data, rates, resets=None) -> None:
    """Every step of a source: its letters are batched, and cut to the longest."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    tp.torch.attach(tp.Plan(horizon=source.steps, lr=rates), optimizer)
    for batch in BatchSampler(source):
        if resets is not None:
            resets.begin_step(batch.step, optimizer)
        tokens, labels, lengths = (part[batch.indices] for part in data)
        width = lengths.max()
        logits = model(torch.from_numpy(tokens[:, : width - 1]))
        optimizer.zero_grad()
        answers = torch.from_numpy(labels[:, 1:width])
        cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()
        optimizer.step()


def dialects_told(embeddings, data, random, steps: int, *, mask_padding: bool) -> float:
    """How often a gate names the dialect of new programs, in percent, after so many steps."""
    gate = ExpertGate(embeddings.embedding_dim, len(FORMS), mask_padding=mask_padding)
    optimizer = torch.optim.Adam(gate.parameters(), 0.03)
    tokens, _, _, lengths, dialects = (torch.from_numpy(part) for part in data)
    with torch.no_grad():
        seen, mask = embeddings(tokens), torch.arange(tokens.shape[1]) < lengths[:, None]
    half = len(tokens) // 2
    for _ in range(steps):
        rows = torch.from_numpy(random.integers(half, size=64))
        optimizer.zero_grad()
        cross_entropy(gate.scores(seen[rows], mask[rows]), dialects[rows]).backward()
        optimizer.step()
    said = gate.scores(seen[half:], mask[half:]).argmax(1)
    return 100 * (said == dialects[half:]).float().mean().item()


def phases_of(order: str, scale: float) -> list[Phase]:
    """Two passes over each level, with the paper's falling peaks, in units of the first."""
    levels = ["snippet"] * 2 + ["program"] * 2
    levels = levels[::-1] if order == "reversed" else levels
    peaks = [scale * peak for peak in (1.0, 7 / 9, 5 / 9, 2 / 9)]
    sizes = {"snippet": 64, "program": 16}
    return [Phase(k, peak, sizes[k]) for k, peak in zip(levels, peaks, strict=True)]


def measure(
    arm: str, seed: int, order: str, scale: float = 4e-3, snippets=4000, programs=800
) -> dict[str, float]:
    """Right letters of held-out programs and whole programs right, in percent, and the gate."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    short, long = texts(snippets, 1, 1, random), texts(programs, 4, 8, random)
    held_out = texts(300, 4, 8, random)
    width = max(part[0].shape[1] for part in (short, long, held_out))
    model = Decoder(vocabulary=len(LETTERS), context=width, width=64, layers=2, heads=4)
    padded = [np.pad(short[k], ((0, 0), (0, width - short[k].shape[1]))) for k in (0, 1)]
    long = [np.pad(long[k], ((0, 0), (0, width - long[k].shape[1]))) for k in (0, 1)] + [long[3]]
    both = [np.concatenate(parts) for parts in zip([*padded, short[3]], long, strict=True)]
    letters = 2 * int(both[2].sum())
    if order in ("phases", "reversed"):
        sizes = {"snippet": snippets, "program": programs}
        curriculum = PhaseCurriculum(phases_of(order, scale), sizes, seed)
        train(model, curriculum, both, curriculum.lr, curriculum)
    elif order == "mixed":
        source = Shuffle(len(both[0]), 42, seed, epochs=2)
        train(model, source, both, tp.schedules.cosine(scale, warmup=10))
    else:
        source = Shuffle(programs * letters // int(long[2].sum()), 16, seed, epochs=1)
        part = [np.resize(rows, (source.n, *rows.shape[1:])) for rows in long]
        train(model, source, part, tp.schedules.cosine(scale, warmup=10))
    tokens, labels = held_out[0], held_out[1][:, 1:]
    with torch.no_grad():
        right = model(torch.from_numpy(tokens[:, :-1])).argmax(2).numpy() == labels
    told = {
        name: dialects_told(model.embedding, held_out, random, 200, mask_padding=masked)
        for name, masked in (("gate", True), ("gate with padding", False))
    }
    asked = labels >= 0
    return told | {
        "letters": 100 * right[asked].mean(),
        "programs": 100 * (right | ~asked).all(axis=1).mean(),
    }


PEAKS = Tuned(3e-3, 6e-3)


def phases(than: str, margin: float = 0.0) -> Claim:
    """That snippets first ends with more letters right than another arm."""
    worse = f", or {-margin:g} points less" if margin else ""
    return Claim(
        text=f"Snippets first has more letters of new programs right than {than}{worse}",
        arm="snippets first",
        than=than,
        metric="letters",
        direction="higher",
        margin=margin,
        unit="points",
    )


STUDY = Study(
    paper="stelocoder",
    claim="At equal processed letters, snippets before programs with falling rates ends at least "
    "as well as a shuffled mixture, and better than programs alone and the reversed order",
    arms={
        "snippets first": {"order": "phases", "scale": PEAKS},
        "mixed": {"order": "mixed", "scale": PEAKS},
        "programs alone": {"order": "program", "scale": PEAKS},
        "programs first": {"order": "reversed", "scale": PEAKS},
    },
    measure=measure,
    metric="letters",
    direction="higher",
    claims=[
        phases("mixed", margin=-0.5),
        phases("programs alone"),
        phases("programs first"),
        Claim(
            text="A gate on the largest score names more than 99 of 100 dialects after 200 steps",
            arm="snippets first",
            than=99.0,
            metric="gate",
            direction="higher",
            decides=False,
        ),
        Claim(
            text="It names fewer if it does not leave padding out",
            arm="snippets first",
            than="snippets first",
            metric="gate",
            than_metric="gate with padding",
            direction="higher",
            decides=False,
        ),
    ],
    seeds=range(5),
    shown=["letters", "programs", "gate", "gate with padding"],
    budget="4000 snippets and 800 programs twice, about 240,000 letters without padding, in each "
    "arm; 2 layers of width 64",
    quick={"snippets": 1024, "programs": 256},
    note="Letters of prompts and answers are counted, padding is not. Programs alone are repeated "
    "until they have as many. All arms but the phases have one cosine. Full training instead of "
    "low-rank adapters, seconds instead of hours: no arm gets whole programs right.",
)
