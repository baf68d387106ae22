"""Trains and judges a tiny model by transformers' Trainer; a program, so that any number of processes can run it.

``python training.py FOLDER NAME=VALUE …`` writes ``results.json`` and the weights to FOLDER; names are those of
``TrainingArguments``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.hf import tiny

WORDS = ["the", "cats", "sleeping", "a", "b", ","]
SAID = {"the": "O", "cats": "B-X", "sleeping": "I-X", "a": "B-Y", "b": "O", ",": "O"}


def examples(tokenizer: Any, label2id: dict[str, int], count: int, seed: int) -> list[dict[str, Any]]:
    from lnz.hf import encode_words

    generator = torch.Generator().manual_seed(seed)
    sentences, tags = [], []
    for _ in range(count):
        n = int(torch.randint(1, 6, (), generator=generator))
        sentences.append([WORDS[k] for k in torch.randint(len(WORDS), (n,), generator=generator)])
        its = [SAID[word] for word in sentences[-1]]
        for k, tag in enumerate(its):
            its[k] = "O" if tag == "I-X" and (k == 0 or its[k - 1][2:] != "X") else tag
        tags.append(its)
    columns = encode_words(tokenizer, sentences, tags, label2id=label2id, max_length=tiny.LONGEST)
    return [{name: values[k] for name, values in columns.items()} for k in range(count)]


def train(folder: Path, **options: Any) -> dict[str, Any]:
    import transformers

    from lnz.hf import CRFDataCollator, EntityMetrics

    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    tokenizer = tiny.tokenizer(folder)
    settings = {
        "max_steps": 20,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 4,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    if "RANK" in os.environ:
        settings["ddp_backend"] = "gloo"

    def trainer() -> Any:
        encoder = tiny.bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        model = tiny.model(encoder=encoder, strong=0.1, tokenizer=tokenizer, special_token_ids=None, dropout=0.0)
        return transformers.Trainer(
            model,
            transformers.TrainingArguments(str(folder / "run"), **settings | options),
            data_collator=CRFDataCollator(tokenizer),
            train_dataset=examples(tokenizer, model.config.label2id, 64, 0),
            eval_dataset=examples(tokenizer, model.config.label2id, 21, 1),
            compute_metrics=EntityMetrics(model.config),
        )

    before = trainer().evaluate()  # a model that has been evaluated is not trained in step by two processes
    trained = trainer()
    trained.train()
    after = trained.evaluate()
    found = trained.predict(trained.eval_dataset)
    if trained.is_world_process_zero():
        trained.save_model(str(folder / "model"))
        tags, marginals, score = (torch.as_tensor(each).tolist() for each in found.predictions[1:])
        result = {"before": before, "after": after, "tags": tags, "marginals": marginals, "score": score}
        (folder / "results.json").write_text(json.dumps(result))
    return {"before": before, "after": after, "predictions": found.predictions}


if __name__ == "__main__":
    train(Path(sys.argv[1]), **{name: json.loads(value) for name, value in (each.split("=") for each in sys.argv[2:])})
