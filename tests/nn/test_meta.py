"""Modules made without memory, emptied, or loaded by a library that does both hold what their settings say."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lnz import nn
from lnz.nn import transition_mask

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")

MODULES = {
    "crf": lambda: nn.LinearChainCRF(5, batch_first=True, tags=TAGS, class_weights=[0.5, 1, 1, 2, 2]),
    "crf without names": lambda: nn.LinearChainCRF(5, batch_first=True),
    "log-mel": lambda: nn.LogMel(8000, num_mels=20),
    "ctc": lambda: nn.CTCHead(4, 5),
    "grid": lambda: nn.GridMRF(3, 4, "shared"),
    "grid with contrast": lambda: nn.GridMRF(3, 4, "contrast", 8),
    "grid with tables": lambda: nn.GridMRF(3, 4, "full"),
    "convnet": lambda: nn.ConvNet(3),
    "speech encoder": lambda: nn.SpeechEncoder(20, 8, recurrent=4),
    "boltzmann": lambda: nn.BoltzmannMachine(4, 2),
    "rbm": lambda: nn.RestrictedBoltzmannMachine(4, 3),
    "hmm, categorical": lambda: nn.HiddenMarkovModel(
        torch.zeros(3), torch.zeros(3, 3), nn.CategoricalEmission(torch.zeros(3, 4))
    ),
    "hmm, diagonal": lambda: nn.HiddenMarkovModel(
        torch.zeros(3), torch.zeros(3, 3), nn.GaussianEmission(torch.zeros(3, 2), torch.ones(3, 2))
    ),
    "hmm, full": lambda: nn.HiddenMarkovModel(
        torch.zeros(3), torch.zeros(3, 3), nn.GaussianEmission(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2))
    ),
    "hmm, neural": lambda: nn.HiddenMarkovModel(
        torch.zeros(3), torch.zeros(3, 3), nn.NeuralEmission(torch.nn.Linear(2, 3), torch.zeros(3))
    ),
    "grammar, categorical": lambda: nn.PCFGModel(
        torch.zeros(2), torch.zeros(2, 5, 5), nn.CategoricalEmission(torch.zeros(3, 4))
    ),
}


def answers(name, module):
    """Something that every parameter, and whatever follows from the settings, is part of."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    if name.startswith("crf"):
        tags = torch.tensor([[0, 1, 2, 0], [3, 4, 4, 0]])
        emissions = drawn(2, 4, 5)
        return module(emissions, tags), module.marginals(emissions)
    if name.startswith("grid"):
        return module(drawn(1, 3, 2, 3)).node_marginals
    if name in ("boltzmann", "rbm"):
        return module.mrf().log_partition
    if name == "log-mel":
        return module(drawn(2, 1000))[0]
    if name == "ctc":
        return module.loss(drawn(1, 4, 4), torch.tensor([[1, 2]]))
    if name == "convnet":
        return module.eval()(drawn(1, 3, 4, 4))
    if name == "speech encoder":
        return module(drawn(1, 6, 20), torch.tensor([6]))[0]
    x = torch.zeros(1, 4, dtype=torch.int64) if "categorical" in name else drawn(1, 4, 2)
    return module(x).log_partition


@pytest.mark.parametrize("name", MODULES)
def test_made_on_the_meta_device_and_filled_from_a_state(name):
    original = MODULES[name]()
    with torch.device("meta"):
        made = MODULES[name]()
    assert all(tensor.is_meta for tensor in (*made.parameters(), *made.buffers()))
    poisoned(made)
    made.load_state_dict(original.state_dict())
    torch.testing.assert_close(answers(name, made), answers(name, original), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODULES)
def test_made_under_a_mode_of_fake_tensors(name):
    with FakeTensorMode():
        made = MODULES[name]()
        assert all(hasattr(tensor, "fake_mode") for tensor in made.parameters())


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(("hmm", "grammar"))])
def test_reset_parameters_restores_what_was_emptied(name):
    """By the same draws; models that are given their parameters have none to draw."""
    torch.manual_seed(5)
    original = MODULES[name]()
    emptied = poisoned(MODULES[name]())
    torch.manual_seed(5)
    for module in emptied.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    assert all(torch.isfinite(tensor).all() for tensor in (*emptied.parameters(), *emptied.buffers()))
    assert [p.any() for p in emptied.parameters()] == [p.any() for p in original.parameters()], "zeros stay zeros"
    if name.startswith(("crf", "log-mel", "boltzmann", "rbm")):
        torch.testing.assert_close(answers(name, emptied), answers(name, original), rtol=0, atol=0)
    if name.startswith("grid"):
        assert not any(p.any() for p in (emptied.tables, *emptied.heads.parameters()))


def poisoned(module):
    """Emptied, with NaN where memory would hold anything."""
    module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data.fill_(torch.nan if tensor.is_floating_point() else 0)
    return module


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "BILOU"])
def test_constraints_are_those_of_the_tags_wherever_the_layer_is(scheme):
    tags = {"BIO": ("O", "B-X", "I-X"), "BIOES": ("O", "B-X", "I-X", "E-X", "S-X")}.get(
        scheme, ("O", "B-X", "I-X", "L-X", "U-X")
    )
    with torch.device("meta"):
        meta = nn.LinearChainCRF(len(tags), tags=tags, scheme=scheme)
    assert meta.start_mask.is_meta
    layers = [meta.to_empty(device="cpu"), nn.LinearChainCRF(len(tags), tags=tags, scheme=scheme)]
    layers += [copy.deepcopy(layers[1]), pickle.loads(pickle.dumps(layers[1])), copy.deepcopy(layers[1]).double()]
    for layer in layers:
        for mask, expected in zip(
            (layer.start_mask, layer.end_mask, layer.transition_mask),
            transition_mask(tags, scheme, dtype=layer.transitions.dtype),
            strict=True,
        ):
            assert torch.equal(mask, expected)
        assert not layer.state_dict().keys() - {"start_transitions", "end_transitions", "transitions"}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, nullcontext])
def test_what_was_first_used_without_gradients_trains(mode):
    layer = nn.LinearChainCRF(5, batch_first=True, tags=TAGS, class_weights=[0.5, 1, 1, 2, 2])
    emissions, tags = torch.randn(1, 4, 5), torch.tensor([[0, 1, 2, 0]])
    with mode():
        layer(emissions, tags)
    layer(emissions, tags).backward()
    features, waveform = nn.LogMel(8000, num_mels=20), torch.randn(1, 1000, requires_grad=True)
    with mode():
        features(waveform)
    features(waveform)[0].sum().backward()
    assert waveform.grad is not None


def test_weights_without_values_are_refused():
    with pytest.raises(TypeError, match=r"class_weights: expected 2 numbers, got tensor\(\.\.\., device='meta'"):
        nn.LinearChainCRF(2, class_weights=torch.ones(2, device="meta"))


class TestHuggingFace:
    """The real library builds a model on the meta device; what the file does not hold is then whatever memory held."""

    @pytest.fixture
    def model_class(self):
        transformers = pytest.importorskip("transformers")

        class Config(transformers.PretrainedConfig):
            model_type = "lnz-test"

        class Model(transformers.PreTrainedModel):
            config_class = Config

            def __init__(self, config):
                super().__init__(config)
                self.features = nn.LogMel(8000, num_mels=20)
                self.head = torch.nn.Linear(20, 5)
                self.crf = nn.LinearChainCRF(5, batch_first=True, tags=TAGS, class_weights=[0.5, 1, 1, 2, 2])
                self.ctc = nn.CTCHead(20, 5)
                self.hmm = MODULES["hmm, full"]()
                self.neural = MODULES["hmm, neural"]()
                self.rbm = nn.RestrictedBoltzmannMachine(4, 3)
                self.grid = nn.GridMRF(3, 4, "contrast")
                self.post_init()

            def forward(self, waveform, tags):
                return self.crf(self.head(self.features(waveform)[0]), tags)

        return Config, Model

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_saved_model_is_itself_again(self, model_class, tmp_path, dtype):
        Config, Model = model_class
        saved = Model(Config()).to(dtype)
        with torch.no_grad():
            for parameter in saved.parameters():
                parameter.normal_(std=0.3)
        saved.save_pretrained(tmp_path)
        memory = [torch.full((1000,), torch.nan) for _ in range(100)]  # what freed memory then holds
        del memory
        loaded = Model.from_pretrained(tmp_path, dtype=dtype)
        assert torch.equal(loaded.crf.start_mask, torch.tensor([0, 0, -torch.inf, 0, -torch.inf], dtype=dtype))
        assert loaded.crf.class_weights.tolist() == [0.5, 1, 1, 2, 2]
        waveform, tags = torch.randn(2, 230, dtype=dtype), torch.tensor([[0, 1, 2], [3, 4, 0]])
        torch.testing.assert_close(loaded(waveform, tags), saved(waveform, tags), rtol=0, atol=0)
        emissions = torch.randn(3, 9, 5, dtype=dtype)
        assert loaded.crf.decode(emissions) == saved.crf.decode(emissions)
        assert all(
            path[k : k + 1] != [2] or path[k - 1] in (1, 2) for path in loaded.crf.decode(emissions) for k in range(9)
        )
        for name, tensor in saved.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
