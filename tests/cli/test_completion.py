"""The script that shells complete by: whole, and of what the commands take."""

import shutil
import subprocess

import pytest

from lnz.cli import COMMANDS, main

pytest.importorskip("shtab", reason="needs the extra train")


@pytest.fixture(scope="module")
def scripts():
    """The scripts by shell; the options are gathered once."""
    import shtab

    from lnz.cli.completion import command_tree

    tree = command_tree()
    return {shell: shtab.complete(tree, shell) for shell in ("bash", "zsh", "fish")}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lnz ", {*COMMANDS}),
        ("lnz fit ", {"segment", "tag", "parse", "density", "transcribe", "bayesnet", "latent-class"}),
        ("lnz fit bayesnet --model.st", {"--model.start"}),
        ("lnz fit latent-class --data.we", {"--data.weights"}),
        ("lnz infer --sam", {"--samples"}),
        ("lnz fit segment --trainer.max_ep", {"--trainer.max_epochs"}),
        ("lnz fit segment --objective ps", {"pseudolikelihood"}),
        ("lnz fit tag --data.scheme ", {"BIO", "BIOES", "BILOU"}),
        ("lnz fit parse --structure ", {"constituency", "dependency"}),
        ("lnz fit parse --model.dec", {"--model.decode"}),
        ("lnz infer --method t", {"trw", "trws"}),
        ("lnz predict --conf", {"--confidence"}),
        ("lnz evaluate --data.transc", {"--data.transcripts"}),
        ("lnz evaluate --js", {"--json"}),
        ("lnz warmup ", {"all", "chain", "ctc", "trws"}),
        ("lnz warmup chain c", {"chain", "ctc"}),
        ("lnz warmup chain --dtype ", {"float32", "float64"}),
        ("lnz completion ", {"bash", "zsh", "fish", "tcsh", "powershell"}),
    ],
)
def test_bash_completes(line, expected, scripts):
    words = " ".join(f"'{word}'" for word in line.split(" "))
    ask = f"""
        COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMP_LINE='{line}'; COMP_POINT={len(line)}
        $(complete -p lnz | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shown = subprocess.run(["bash", "-c", scripts["bash"] + ask], capture_output=True, text=True, check=False)
    found = set(shown.stdout.split())
    assert expected <= found, (shown.stdout, shown.stderr)
    last = line.split(" ")[-1]
    assert all(word.startswith(last) for word in found)


def test_every_shell_knows_the_options(scripts):
    for script in scripts.values():
        for option in ("model.sampler", "data.void_label", "overwrite", "map-vars"):
            assert option in script
        assert "pseudolikelihood" in script


def test_an_unknown_shell_is_told(capsys):
    assert main(["completion", "ksh"]) == 2
    assert "shell: expected one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err
