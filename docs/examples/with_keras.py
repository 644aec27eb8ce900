"""Train with Keras 3 under a plan, save the model, and go on from the file."""

from pathlib import Path

import keras
import numpy as np

import trainplan as tp

plan = tp.Plan(horizon=12, lr=tp.schedules.wsd(peak=0.05, warmup="25%", decay="25%"))

x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
y = x.sum(axis=1, keepdims=True)


def begin(plan: tp.Plan = plan, accumulate: int | None = None) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    rate = tp.keras.LearningRate(plan, gradient_accumulation_steps=accumulate)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, gradient_accumulation_steps=accumulate)
    model.compile(optimizer=optimizer, loss="mse")
    return model


def train(model: keras.Model, steps: int) -> None:
    for _ in range(steps):
        model.train_on_batch(x, y)


if __name__ == "__main__":
    model = begin()
    train(model, 7)
    model.save(Path("model.keras"))  # interrupted

    model = keras.saving.load_model(Path("model.keras"))
    train(model, 5)
