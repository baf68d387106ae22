import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from lnz.errors import FormatError
from lnz.inference import BeliefPropagation, Exact
from lnz.tasks.segment.measures import Measures
from lnz.tasks.segment.module import SegmentModule


def small(**kwargs):
    torch.manual_seed(0)
    return SegmentModule(3, 1, width=4, dilations=(1,), **kwargs)


def test_both_networks_start_equal_and_share_nothing():
    module = small().eval()
    image = torch.randn(2, 1, 4, 5)
    beliefs, converged = module.beliefs(image)
    torch.testing.assert_close(beliefs["softmax"], beliefs["mrf"])
    assert converged.tolist() == [1, 1]
    mrf, softmax = ({id(p) for p in part.parameters()} for part in (module.mrf, module.softmax))
    assert not mrf & softmax


def test_each_network_follows_its_own_loss_alone():
    """The gradients of the summed loss are those of each loss by itself, per observed pixel."""
    module = small(inference=BeliefPropagation(max_iterations=5))
    module.log = lambda *args, **kwargs: None
    batch = {"image": torch.randn(2, 1, 3, 3), "labels": torch.randint(3, (2, 3, 3))}
    batch["labels"][0, 1, 1] = -100
    module.training_step(batch, 0).backward()
    softmax = [p.grad.clone() for p in module.softmax.parameters()]
    module.zero_grad()
    F.cross_entropy(module.softmax(batch["image"]), batch["labels"], ignore_index=-100).backward()
    for got, parameter in zip(softmax, module.softmax.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad)


def test_void_pixels_are_summed_over():
    """With a void pixel the MRF's loss is ln Z − ln Z(observed): here against exact inference."""
    module = small(objective="nll-bp").double()
    module.log = lambda name, value, **kwargs: logged.update({name: value})
    logged: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        module.mrf[1].tables.normal_()
    module.mrf[1].inference = Exact()
    image, labels = torch.randn(1, 1, 2, 2, dtype=torch.float64), torch.tensor([[[0, -100], [2, 1]]])
    module.training_step({"image": image, "labels": labels}, 0)
    p = module.mrf(image)
    filled = [torch.tensor([[0, label, 2, 1]]) for label in range(3)]
    observed = torch.stack([p.log_prob(y) for y in filled]).logsumexp(0)
    torch.testing.assert_close(logged["train/mrf_loss"], -observed[0] / 3)


@pytest.mark.parametrize("edges", ["shared", "contrast", "full"])
def test_checkpoint_round_trip(edges):
    module = small(edges=edges, inference=BeliefPropagation(max_iterations=7, damping=0.25))
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    again = SegmentModule.from_checkpoint(checkpoint, "x.ckpt")
    assert again.mrf[1].inference == BeliefPropagation(max_iterations=7, damping=0.25)
    image = torch.randn(1, 1, 3, 3)
    module.eval()
    labels, confidence = module.predict_step({"image": image}, 0)
    assert torch.equal(again.predict_step({"image": image}, 0)[1], confidence)
    assert labels.shape == (1, 3, 3)


def test_foreign_checkpoints():
    with pytest.raises(FormatError, match=r"x\.ckpt: expected a checkpoint of lnz fit segment, got task 'tag'"):
        SegmentModule.from_checkpoint({"lnz": {"task": "tag"}, "state_dict": {}}, "x.ckpt")
    checkpoint = {"state_dict": {}}
    small().on_save_checkpoint(checkpoint)
    with pytest.raises(FormatError, match=r"x\.ckpt: does not belong to this version of lnz"):
        SegmentModule.from_checkpoint(checkpoint, "x.ckpt")


class TestMeasures:
    def measured(self, beliefs, labels):
        measures = Measures(beliefs.shape[1])
        for b, y in zip(beliefs.split(1), labels.split(1), strict=True):
            measures.update(b, y)
        return {name: float(value) for name, value in measures.compute().items()}

    def test_against_the_definitions(self):
        beliefs, labels = torch.randn(3, 4, 5, 6).softmax(1), torch.randint(4, (3, 5, 6))
        labels[0, :2] = -100
        got, seen, predicted = self.measured(beliefs, labels), labels != -100, beliefs.argmax(1)
        assert got["accuracy"] == pytest.approx((predicted == labels)[seen].float().mean().item())
        unions = []
        for label in range(4):
            a, b = (predicted == label) & seen, labels == label
            unions.append(((a & b).sum() / (a | b).sum()).item())
        assert got["miou"] == pytest.approx(sum(unions) / 4)
        gold = beliefs.gather(1, labels.clamp(min=0)[:, None])[:, 0]
        assert got["nll"] == pytest.approx(-gold.log()[seen].mean().item())
        pixels = beliefs.movedim(1, -1)[seen]
        ece = multiclass_calibration_error(pixels, labels[seen], num_classes=4, n_bins=15)
        assert got["ece"] == pytest.approx(float(ece), abs=1e-6)

    def test_rounding_above_one_is_no_logit(self):
        beliefs = torch.tensor([1 + 1e-6, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
        assert self.measured(beliefs, torch.zeros(1, 2, 2, dtype=torch.int64))["ece"] == pytest.approx(0, abs=1e-6)

    def test_a_batch_of_void_counts_nowhere(self):
        beliefs, labels = torch.randn(2, 2, 2, 2).softmax(1), torch.randint(2, (2, 2, 2))
        labels[1] = -100
        assert self.measured(beliefs, labels) == self.measured(beliefs[:1], labels[:1])
