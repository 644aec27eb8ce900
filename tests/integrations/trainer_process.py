"""One rank of a Transformers Trainer for test_data_processes.py; writes down what it was shown."""

import json
import os
import sys
import warnings
from pathlib import Path

import datasets
import torch
import transformers

import trainplan as tp

N = 50


class Sees(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x, labels=None):
        self.seen.append(x.tolist())
        return {"loss": ((self.weight - x.float() / N) ** 2).mean(), "logits": x}


class Stop(transformers.TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def main(folder, file, stop, resume, workers, accumulation):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    arguments = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=8 // int(os.environ["WORLD_SIZE"]) // int(accumulation),
        gradient_accumulation_steps=int(accumulation),
        dataloader_num_workers=int(workers),
        num_train_epochs=3,
        save_steps=8,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    data = datasets.Dataset.from_dict({"x": list(range(N)), "labels": [0] * N})
    model = Sees()
    trainer = transformers.Trainer(
        model, arguments, train_dataset=data, callbacks=[Stop(int(stop))]
    )
    tp.transformers.order_data(trainer, tp.data.Shuffle(N, 8, seed=1, epochs=3))
    trainer.train(resume_from_checkpoint=resume or None)
    Path(file).write_text(json.dumps(model.seen))
    torch.distributed.destroy_process_group()  # or the process may abort as it ends


if __name__ == "__main__":
    main(*sys.argv[1:])
