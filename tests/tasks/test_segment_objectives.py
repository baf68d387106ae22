"""The objectives of ``lnz fit segment``: their gradients, unobserved pixels, and chains that persist."""

import pytest
import torch
from torch.nn import functional as F

import lnz
from lnz import metrics
from lnz.inference import BeliefPropagation, Exact, Gibbs
from lnz.tasks.segment.chains import ImageChains
from lnz.tasks.segment.data import Augmented, FolderDataset, collate
from lnz.tasks.segment.module import SegmentModule
from lnz.tasks.segment.objectives import NAMES, OBJECTIVES, PixelIoU, Step, by
from lnz.tasks.streams import generator

pytestmark = pytest.mark.filterwarnings("ignore::lnz.ConvergenceWarning")


def module(objective, **kwargs):
    torch.manual_seed(0)
    made = SegmentModule(3, 1, width=4, dilations=(1,), objective=objective, **kwargs)
    made.log = lambda *args, **kwargs: None
    return made


def batch(void=False, size=(3, 4)):
    drawn = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (2, *size), generator=drawn)
    if void:
        labels[0, :2, 1:3] = -100  # neighbours of each other
    pixels = torch.arange(labels[0].numel()).reshape(1, *size).expand(2, -1, -1)
    image = torch.randn(2, 1, *size, generator=drawn)
    return {"image": image, "labels": labels, "pixels": pixels, "index": torch.tensor([3, 5])}


def model(size=(2, 3), labels=3, seed=0):
    """A random grid whose scores want gradients."""
    drawn = torch.Generator().manual_seed(seed)
    graph = lnz.FactorGraph.grid(*size, labels, by_direction=True)
    nodes = torch.randn(1, graph.num_nodes, labels, dtype=torch.float64, generator=drawn)
    tables = [torch.randn(labels, labels, dtype=torch.float64, generator=drawn) for _ in range(2)]
    return graph, [nodes.requires_grad_(), *(table.requires_grad_() for table in tables)]


def step(**kwargs):
    settings = {"sampler": Gibbs(chains=4, warmup=20), "steps": 1, "generator": generator(0), "error": "iou"}
    return Step(**{**settings, "epsilon": 1.0, **kwargs})


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_every_parameter(name, void):
    made = module(name, inference=BeliefPropagation(max_iterations=5), warm_start=0.0)
    with torch.no_grad():  # away from the start, where labels that do not matter would tie
        for parameter in made.mrf.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    assert torch.isfinite(made.training_step(batch(void), 0))
    made.training_step(batch(void), 0).backward()
    gradients = {key: p.grad for key, p in made.mrf.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert gradients["1.nodes.weight"].abs().sum() > 0  # those of the bias are differences of counts: 0 may be right
    assert ("1.tables" in gradients) == (name != "softmax")


@pytest.mark.parametrize("name", ["nll-bp", "nll-trw", "mcmc", "cd"])
def test_likelihoods_have_the_exact_gradient_where_their_method_is_exact(name):
    """On a row of pixels messages are exact, and blocks of Gibbs sampling are the whole row."""
    graph, scores = model((1, 4))
    y = torch.tensor([[0, 2, -100, 1]])
    exact = torch.autograd.grad(-lnz.MRF(graph, scores).log_prob(y).sum(), scores)
    objective, bp = OBJECTIVES[name], BeliefPropagation()
    sampler = Gibbs(order="tree", chains=4000, warmup=1)
    p = lnz.MRF(graph, scores, objective.judge(bp) if objective.train is None else objective.train(bp, sampler))
    if name == "cd":  # from a sweep that is exact: an unbiased gradient, here the mean of many entries
        p, y = by(p.expand((4000,)), Exact()), y.expand(4000, -1)
    found = torch.autograd.grad(objective.loss(p, y, step(sampler=sampler)), scores)
    for got, expected in zip(found, exact, strict=True):
        torch.testing.assert_close(
            got / (4000 if name == "cd" else 1), expected, atol=0.05 if name in ("mcmc", "cd") else 1e-9, rtol=0
        )


def test_pseudolikelihood_is_that_of_the_library_and_counts_observed_pixels_alone():
    graph, scores = model((3, 3))
    p, y = lnz.MRF(graph, scores), torch.randint(3, (1, 9), generator=generator(1))
    torch.testing.assert_close(
        OBJECTIVES["pseudolikelihood"].loss(p, y, step()), lnz.objectives.pseudolikelihood(p, y, "sum")
    )
    alone = y.clone()
    alone[0, 1:] = -100  # one pixel observed: its conditional, given the drawn others
    loss = OBJECTIVES["pseudolikelihood"].loss(p, alone, step())
    filled = p.condition(alone)
    drawn = by(p, step().sampler).condition(alone).sample((), generator(0))
    assert (filled.score(drawn) > -torch.inf).all()
    torch.testing.assert_close(loss, -p.log_conditionals(drawn)[0, 0])


@pytest.mark.parametrize("name", ["label-adjustment", "hinge"])
@pytest.mark.parametrize("error", ["iou", "hamming"])
def test_argmax_objectives_with_an_exact_argmax(name, error):
    graph, scores = model((2, 3), seed=4)
    p = lnz.MRF(graph, scores)
    y = torch.tensor([[0, 2, 1, -100, 0, 1]])
    judge = PixelIoU(3) if error == "iou" else metrics.hamming
    with torch.no_grad():
        every, best = p.topk(3**6)
        wrong = judge(y, every[:, 0].masked_fill(y == -100, -100)).double()
        top = best[:, 0]
    found = OBJECTIVES[name].loss(p, y, step(error=error, epsilon=0.7))
    if name == "hinge":
        gold = top[(every[:, 0] == y).logical_or(y == -100).all(-1)].max()
        expected = (top + wrong).max() - gold
    else:
        adjusted = every[(top - 0.7 * wrong).argmax(), 0]
        expected = top.max() - p.score(adjusted[None]).item()
    assert found.item() == pytest.approx(float(expected), abs=1e-6)


def test_pixel_iou_is_iou_times_the_judged_pixels():
    y = torch.tensor([[0, 1, -100, 2, 1]])
    guess = torch.tensor([[0, 2, -100, 2, 1]])
    error = PixelIoU(3)
    assert error(y, guess) == pytest.approx(4 * metrics.iou(3)(y, guess).item())
    costs = error.change_costs(y, guess, 3)
    changed = guess.clone()
    changed[0, 1] = 1
    assert costs[0, 1, 1] == pytest.approx(error(y, changed).item(), abs=1e-6)


def test_softmax_leaves_the_edges_at_zero():
    made = module("softmax").eval()
    data = batch()
    loss = made.loss(made.mrf, data, generator(0))
    torch.testing.assert_close(loss, F.cross_entropy(made.softmax(data["image"]), data["labels"], reduction="sum"))
    beliefs, _ = made.beliefs(data["image"])
    torch.testing.assert_close(beliefs["softmax"], beliefs["mrf"])
    assert not made.mrf[1].tables.requires_grad


def test_predictions_are_best_labellings_where_training_was_for_them():
    image = 3 * batch(size=(4, 5))["image"].double()
    made = module("hinge").double().eval()
    with torch.no_grad():
        made.mrf[1].tables.copy_(torch.eye(3))
        p = made.mrf(image)
        labels, beliefs, _ = made.predicted(image)
    assert torch.equal(labels.flatten(1), by(p, Exact()).argmax())
    assert not torch.equal(labels, beliefs.argmax(1))
    shown, confidence = made.predict_step({"image": image}, 0)
    assert torch.equal(shown, labels)
    torch.testing.assert_close(confidence, beliefs.gather(1, labels[:, None])[:, 0])


def test_steps_are_a_function_of_the_key_alone():
    torch.manual_seed(1)
    first = module("cd")
    state = {key: value.clone() for key, value in first.state_dict().items()}
    torch.manual_seed(2)
    again = SegmentModule(3, 1, width=4, dilations=(1,), objective="cd")
    again.log = first.log
    again.load_state_dict(state)
    assert torch.equal(first.training_step(batch(True), 0), again.training_step(batch(True), 0))


def test_measuring_the_time_of_a_step_changes_nothing():
    made = module("pcd")
    made.training_step(batch(), 0)
    before, chains = {key: value.clone() for key, value in made.state_dict().items()}, made.chains.state_dict()
    chains = {key: value.clone() for key, value in chains.items()}
    assert made.seconds_per_step(batch(), repeats=1) > 0
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert all(torch.equal(value, chains[key]) for key, value in made.chains.state_dict().items())


class TestChains:
    def test_checkpoints_keep_them(self):
        made = module("pcd")
        made.training_step(batch(), 0)
        checkpoint = {"state_dict": made.state_dict()}
        made.on_save_checkpoint(checkpoint)
        assert set(checkpoint["lnz"]["chains"]) == {"3", "5"}
        again = module("pcd")
        again.on_load_checkpoint(checkpoint)
        again.load_state_dict(checkpoint["state_dict"])
        assert torch.equal(again.training_step(batch(), 0), made.training_step(batch(), 0))

    def test_start_at_gold_and_go_on(self):
        graph, scores = model((3, 4))
        p = lnz.MRF(graph, scores).expand((2,))
        data, chains = batch(), ImageChains()
        gold = data["labels"].flatten(1)
        start = chains.of(p, gold, data, Gibbs(), generator(0))
        assert torch.equal(start.labels[0], gold)
        chains.keep(Gibbs().step(p.model, start, 3, generator(0)), data)
        later = chains.of(p, gold, data, Gibbs(), generator(0))
        assert not torch.equal(later.labels, start.labels)
        assert torch.equal(later.labels[0, 0], chains.labels[3].long())

    def test_unknown_gold_starts_at_random_labels(self):
        graph, scores = model((3, 4))
        data = batch(void=True)
        start = ImageChains().of(
            lnz.MRF(graph, scores).expand((2,)), data["labels"].flatten(1), data, Gibbs(), generator(0)
        )
        assert (start.labels >= 0).all()

    def test_crops_and_mirrored_images_read_and_write_their_own_pixels(self):
        """What is kept of an image is where it lies in the image, however it was shown."""
        whole = torch.arange(30).reshape(5, 6) % 3
        crop = whole[1:4, 2:6].flip(-1)
        pixels = torch.arange(30).reshape(5, 6)[1:4, 2:6].flip(-1)
        chains = ImageChains()
        shown = {"pixels": pixels[None], "index": torch.tensor([9])}
        chains.keep(lnz.inference.Chains(crop.reshape(1, 1, -1)), shown)
        kept = chains.labels[9]
        inside = torch.zeros(5, 6, dtype=torch.bool)
        inside[1:4, 2:6] = True
        assert torch.equal(kept.long(), torch.where(inside, whole, -1).flatten()[: len(kept)])


def test_data_says_which_pixels_are_shown(tmp_path):
    import numpy as np
    from PIL import Image

    from lnz.io.images import pair_images
    from lnz.io.masks import Coding

    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "a_mask.png")
    data = Augmented(FolderDataset(pair_images(tmp_path, None, "_mask"), Coding()), seed=0, flip=True, crop=3)
    for epoch in range(4):
        example = data[epoch, 0]
        assert torch.equal(example["pixels"], example["labels"])
        assert example["index"] == 0
    assert collate([example, example])["pixels"].shape == (2, 3, 3)


class _Trainer:
    """As much of a trainer as a schedule looks at."""

    estimated_stepping_batches = 8


def test_schedules_follow_the_steps(monkeypatch):
    assert module("hinge").warm_start == 0
    made = module("label-adjustment", epsilon=8.0, last_epsilon=1.0)  # by default, the first half is the likelihood's
    monkeypatch.setattr(SegmentModule, "trainer", _Trainer())
    seen = {}
    for taken in range(8):
        monkeypatch.setattr(SegmentModule, "global_step", taken)
        seen[taken] = made._epsilon
    assert [seen[taken] for taken in (0, 4, 5, 6, 7)] == pytest.approx([8, 8, 4, 2, 1])
    monkeypatch.setattr(SegmentModule, "global_step", 3)  # still warming up: the likelihood's own loss
    logged = {}
    made.log = lambda name, value, **kwargs: logged.update({name: value})
    made.training_step(batch(), 0)
    torch.testing.assert_close(logged["train/mrf_loss"] * 24, made.likelihood(batch()))
    monkeypatch.setattr(SegmentModule, "global_step", 4)
    made.training_step(batch(), 0)
    assert logged["train/mrf_loss"] * 24 != made.likelihood(batch())


def test_bad_settings():
    with pytest.raises(ValueError, match="objective: expected one of nll, nll-bp, nll-trw"):
        module("em")
    with pytest.raises(ValueError, match="steps: expected a positive integer, got 0"):
        module("cd", steps=0)
    with pytest.raises(ValueError, match=r"warm_start: expected a number in \[0, 1\), got 1"):
        module("cd", warm_start=1.0)
    with pytest.raises(ValueError, match="expected positive numbers, got -1"):
        module("label-adjustment", epsilon=-1.0)
