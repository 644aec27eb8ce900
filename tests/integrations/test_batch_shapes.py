"""Accelerate gives all ranks batches of one size and shape in each step; a Trainer resumes them."""

import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate.data_loader")

import trainplan as tp  # noqa: E402
from trainplan import PlanError  # noqa: E402
from trainplan.data import BatchSampler, Shaped, Shuffle, Turns, VariedBatches  # noqa: E402


def source():
    sizes, lengths = [4, 4, 8, 12, 4, 8], [1, 2, 3, 4, 5, 6]
    return VariedBatches(Shuffle(50, 8, seed=3), sizes, shape={"length": lengths})


def fit(example, shape):
    return torch.full((shape["length"],), example)


def prepared(rank, ranks, even, **options):
    sampler = BatchSampler(source(), ranks=ranks, rank="all", **options)
    loader = torch.utils.data.DataLoader(Shaped(range(50), fit), batch_sampler=sampler)
    return accelerate.prepare_data_loader(
        loader, num_processes=ranks, process_index=rank, put_on_device=False, even_batches=even
    )


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 1), (2, 1), (2, 2)])
def test_ranks_share_every_step_evenly(ranks, accumulation, even):
    parts = [list(prepared(r, ranks, even, accumulation=accumulation)) for r in range(ranks)]
    shapes = [[tuple(batch.shape) for batch in part] for part in parts]
    assert all(each == shapes[0] for each in shapes)
    expected = [list(batch) for batch in BatchSampler(source(), ranks=1)]
    for step, batch in enumerate(expected):
        chosen = range(step * accumulation, (step + 1) * accumulation)
        found = [i for k in chosen for part in parts for i in part[k][:, 0].tolist()]
        assert found == [i for i, _ in batch]
        assert {shapes[0][k][1] for k in chosen} == {step + 1}
    assert len(shapes[0]) == len(expected) * accumulation


def test_turns_of_several_sizes_lose_no_batch():
    turns = Turns({"images": 60, "videos": 24}, {"images": 6, "videos": 2}, epochs=1)
    sampler = BatchSampler(turns, ranks=2, rank="all")
    loader = torch.utils.data.DataLoader(range(84), batch_sampler=sampler)
    loader = accelerate.prepare_data_loader(
        loader, num_processes=2, process_index=0, put_on_device=False
    )
    assert [len(batch) for batch in loader] == [3, 1] * 10


def test_sharing_out_twice_is_refused():
    sampler = BatchSampler(source(), ranks=2, rank=0)
    loader = torch.utils.data.DataLoader(Shaped(range(50), fit), batch_sampler=sampler)
    loader = accelerate.prepare_data_loader(
        loader, num_processes=2, process_index=0, put_on_device=False
    )
    with pytest.raises(PlanError, match="rank='all'"):
        next(iter(loader))


def examples(number, shape):
    return {"x": torch.full((shape["length"],), float(number))}


class Counting(torch.nn.Module):
    """Learns one number, and writes down the batches it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x, labels=None):
        self.seen.append((tuple(x.shape), x[:, 0].long().tolist()))
        return {"loss": ((self.weight - x / 50) ** 2).mean(), "logits": x}


def trained(folder, resume=None):
    transformers = pytest.importorskip("transformers")
    sizes, lengths = [8, 8, 4, 12, 4, 8], [1, 2, 3, 4, 5, 6]
    source = VariedBatches(Shuffle(50, 8, seed=3), sizes, shape={"length": lengths})
    args = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=4,  # of the first step; the others have sizes of their own
        gradient_accumulation_steps=2,
        max_steps=6,
        save_steps=3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model = Counting()
    trainer = transformers.Trainer(model, args, train_dataset=Shaped(range(50), examples))
    tp.transformers.order_data(trainer, source)
    trainer.train(resume_from_checkpoint=resume)
    return model.seen, model.weight.item(), source


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_follows_shapes_and_resumes_exactly(tmp_path):
    seen, weight, source = trained(tmp_path)
    for step in range(6):
        first, second = seen[2 * step : 2 * step + 2]
        size = source.size(step)
        assert first[0] == second[0] == (size // 2, step + 1)
        assert first[1] + second[1] == source.examples(step, 0, size).tolist()
    again, resumed, _ = trained(tmp_path, resume=str(tmp_path / "checkpoint-3"))
    assert again == seen[6:]
    assert resumed == weight
