"""Options by their full names only, and wrong ones told in one line that names option, choices and what came."""

import pytest

from lnz.cli import main

EDGES = "--model.edges: expected one of 'shared', 'contrast', 'full', 'bilateral', got 'potts'"
OBJECTIVES = (
    "'nll', 'nll-bp', 'nll-trw', 'mean-field', 'mcmc', 'pseudolikelihood', 'cd', 'pcd', 'label-adjustment', 'hinge'"
)

TOLD = {
    # prefixes of options
    "fit segment --trainer.max_epoch 1": (
        "unrecognized arguments: --trainer.max_epoch 1; did you mean --trainer.max_epochs?"
    ),
    "fit segment --outp x": "unrecognized arguments: --outp x; did you mean --output?",
    "fit tag --data.batch 2": "unrecognized arguments: --data.batch 2; did you mean --data.batch_size?",
    "fit density --see 2": "unrecognized arguments: --see 2; did you mean --seed_everything or --seeds?",
    "fit transcribe --model.be 2": "unrecognized arguments: --model.be 2; did you mean --model.beam?",
    "fit segment --model.sampler.swee 3": "--model.sampler: has no setting 'swee'",
    "infer x.uai --meth exact": "unrecognized arguments: --meth exact; did you mean --method?",
    "predict x --images y --outp z": "the following arguments are required: --output",
    "align x --audio y --output z --trans t": "unrecognized arguments: --trans t; did you mean --transcripts?",
    # slips
    "fit segment --modle.edges full": "unrecognized arguments: --modle.edges full; did you mean --model.edges?",
    "fit segmen": "tasks are: segment, tag, parse, density, transcribe, bayesnet, latent-class; did you mean segment?",
    # literals: alone, with null, in dataclasses, in classes of their own
    "fit segment --objective em": f"--objective: expected one of {OBJECTIVES}, 'softmax', 'all', got 'em'",
    "fit segment --model.edges potts": EDGES,
    "fit segment --model.error x": "--model.error: expected one of 'iou', 'hamming', got 'x'",
    "fit segment --data.scenes.labels x": "--data.scenes.labels: expected one of 'figure', 'digit', got 'x'",
    "fit segment --model.sampler.order x": (
        "--model.sampler.order: expected one of 'chromatic', 'systematic', 'random', 'tree', got 'x'"
    ),
    "fit tag --data.scheme X": (
        "--data.scheme: expected one of 'BIO', 'IOB2', 'IOB1', 'BIOES', 'IOBES', 'BILOU', 'BMES', got 'X'"
    ),
    "fit density --model.kind x": "--model.kind: expected one of 'rbm', 'grid', got 'x'",
    "fit transcribe --data.units x": "--data.units: expected one of 'characters', 'words', got 'x'",
    "predict x --images y --output z --confidence x": "--confidence: expected one of 'png', 'npy', 'none', got 'x'",
    "align x --audio y --output z --format x": "--format: expected one of 'textgrid', 'json', 'both', 'srt', 'ctm', "
    "got 'x'",
    # other kinds
    "fit segment --model.width x": "--model.width: expected an integer, got 'x'",
    "fit segment --data.flip 3": "--data.flip: expected true or false, got '3'",
    "fit segment --model.dilations 1": "--model.dilations: expected a list, got '1'",
    "fit segment --model.inference nope": "expected a file, or the dotted name of a class, got 'nope'",
    "fit segment --trainer.callbacks foo.Bar": (
        "--trainer.callbacks: expected the dotted name of a class, got 'foo.Bar' (No module named 'foo')"
    ),
    "infer x.uai --method bp --damping x": "--damping: expected a number, got 'x'",
    "infer x.uai --max-table x": "--max-table: expected a positive integer, got 'x'",
    "infer x.uai --max-table 0": "--max-table: expected a positive integer, got '0'",
    # what others set
    "fit segment --model.objective em": "--model.objective: is set by --objective; give that instead",
    "fit segment --model.objective cd": "--model.objective: is set by --objective; give that instead",
    "fit segment --model.num_classes 3": "--model.num_classes: is set by --data.num_classes; give that instead",
    "fit tag --model.tags [a]": "--model.tags: is set by the data, and cannot be given",
}


@pytest.mark.parametrize("command", TOLD)
def test_told_in_one_line(command, capsys):
    assert main(command.split()) == 2
    message = capsys.readouterr().err
    assert TOLD[command] in message
    assert message.count("\n") == 1
    for internal in ("Parser key", "typing.", "<class", "Union", "_of_one_run", "Traceback"):
        assert internal not in message


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("trainer: {max_epoch: 1}", "no option trainer.max_epoch; did you mean --trainer.max_epochs?"),
        ("objective: 3", f"--objective: expected one of {OBJECTIVES}, 'softmax', 'all', got '3'"),
        (
            "model: {edges: potts}",
            EDGES,
        ),
        ("a: [1", "c.yaml: cannot be read as YAML (while parsing a flow sequence"),
    ],
)
def test_configuration_files_too(config, told, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(config)
    assert main(["fit", "segment", "--config", str(tmp_path / "c.yaml")]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("task", ["segment", "tag", "density", "transcribe"])
def test_help_names_no_internals(task, capsys):
    assert main(["fit", task, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "_of_one_run" not in shown
    assert "--overwrite" in shown
