"""The two arctangents, the loss of consistency, and the teacher."""

import torch

from trainplan.data import consistency_weight, head_rate
from trainplan.models import EmaTeacher, consistency_loss


def weights(inputs):
    schedule = consistency_weight(inputs["max_epochs"])
    return {"weight": [schedule(epoch) for epoch in inputs["epochs"]]}


def rates(inputs):
    schedule = head_rate(inputs["max_epochs"])
    return {"head_lr": [schedule(epoch) for epoch in inputs["epochs"]]}


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def consistency(inputs):
    student, teacher = tensor(inputs["student_logits"]), tensor(inputs["teacher_logits"])
    return {"loss": consistency_loss(student, teacher, inputs["teacher_temperature"]).item()}


def total(inputs):
    """The reference rounded these logits to single precision, and went on in double."""

    def tensor(rows):
        return torch.tensor(rows, dtype=torch.float32).double()

    source, labels = tensor(inputs["source_logits"]), torch.tensor(inputs["source_labels"])
    ce = torch.nn.functional.cross_entropy(source, labels).item()
    student, teacher = (tensor(inputs[f"target_{who}_logits"]) for who in ("student", "teacher"))
    loss = consistency_loss(student, teacher, inputs["teacher_temperature"]).item()
    weight = consistency_weight(inputs["max_epochs"])(inputs["epoch"])
    return {"ce": ce, "consistency": loss, "weight": weight, "total": ce + weight * loss}


def averaged(inputs):
    student = torch.nn.ParameterList([tensor(inputs["teacher0"])])
    teacher = EmaTeacher(student, inputs["momentum"])
    for values in inputs["student_per_epoch"]:
        with torch.no_grad():
            student[0].copy_(tensor(values))
        teacher.update(student)
    return {"teacher": teacher.module[0]}


ADAPTERS = {
    "consistency-loss weight": weights,
    "learning rate of the source classifier head": rates,
    "consistency loss": consistency,
    "total loss": total,
    "teacher parameters": averaged,
}
