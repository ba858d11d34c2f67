"""Two PyTorch trainings in other people's loops; run by an interpreter that has them.

Prints, as JSON, what the callbacks logged of each epoch: of two epochs with validation, of half a
second and more each, and of one after a training that failed.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from transformers import Trainer as HuggingFaceTrainer
from transformers import TrainingArguments
from waiting import keep_busy

from green_screen import LightningEnergyCallback, TransformersEnergyCallback

FOLDER = sys.argv[1]
DATA = torch.utils.data.TensorDataset(torch.rand(64, 6), torch.zeros(64, dtype=torch.long))
WORK_S = 0.1


class Module(LightningModule):
    faulty = False

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 3)

    def training_step(self, batch, index):
        if self.faulty:
            raise KeyError("a fault of the user's")
        keep_busy(WORK_S)
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.layer(images), labels)

    def validation_step(self, batch, index):
        keep_busy(WORK_S)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning():
    callback, rows = LightningEnergyCallback(), []

    class Logger(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if "epoch_energy_j" in metrics:
                rows.append(dict(metrics))

    def fit(module, epochs):
        logger = Logger(FOLDER)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        data = [torch.utils.data.DataLoader(DATA, batch_size=8) for _ in range(2)]
        trainer = Trainer(
            max_epochs=epochs,
            callbacks=[callback],
            logger=logger,
            accelerator="cpu",
            **quiet,
            enable_checkpointing=False,
        )
        trainer.fit(module, *data)

    fit(Module(), 2)
    epochs = list(rows)
    faulty = Module()
    faulty.faulty = True
    try:
        fit(faulty, 1)
    except KeyError:
        fit(Module(), 1)
    return {
        "epochs": epochs,
        "validations": sum("validation_energy_j" in row for row in epochs),
        "after_a_failure": len(rows) - len(epochs),
    }


class Network(torch.nn.Module):
    def __init__(self, faulty=False):
        super().__init__()
        self.layer, self.faulty = torch.nn.Linear(6, 3), faulty

    def forward(self, images, labels):
        if self.faulty:
            raise KeyError("a fault of the user's")
        keep_busy(WORK_S)
        logits = self.layer(images)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def transformers():
    callback = TransformersEnergyCallback()

    def fit(network, epochs):
        data = [{"images": image, "labels": label} for image, label in DATA]
        arguments = TrainingArguments(
            FOLDER,
            num_train_epochs=epochs,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = HuggingFaceTrainer(
            network, arguments, train_dataset=data, eval_dataset=data, callbacks=[callback]
        )
        trainer.train()
        return trainer.state.log_history

    history = fit(Network(), 2)
    try:
        fit(Network(faulty=True), 1)
    except KeyError:
        again = fit(Network(), 1)
    return {
        "epochs": [row for row in history if "epoch_energy_j" in row],
        "validations": sum("validation_energy_j" in row for row in history),
        "after_a_failure": sum("epoch_energy_j" in row for row in again),
    }


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    found = {"lightning": lightning(), "transformers": transformers()}
    print(json.dumps(found, default=float))


if __name__ == "__main__":
    main()
