"""Steering: the published histories, closed forms on linear networks, and independence of rows."""

import copy
from functools import partial
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN
from pytorch_lightning import Trainer
from safetensors.torch import load_file
from torch import nn

from zsteer.networks.checkpoints import load_weights
from zsteer.networks.tutorial import Classifier, Generator
from zsteer.steering.history import NonFiniteScore
from zsteer.steering.methods import Ascent, BestOf, Direction, Penalty, Projected, Tutorial, secant
from zsteer.steering.module import TRAINER_SETTINGS, LatentSteering
from zsteer.steering.rows import Rows, step_length

PLAIN = partial(torch.optim.SGD, lr=1)
ACCUMULATED = partial(torch.optim.SGD, lr=1, momentum=1)
SMILING = 31
Precision = Literal["64-true", "32-true", "bf16-mixed"]


def golden_networks():
    generator = load_weights(Generator(hidden_dim=8), GOLDEN / "pretrained_celeba.pth").eval()
    classifier = load_weights(Classifier(hidden_dim=8), GOLDEN / "pretrained_classifier.pth").eval()
    return generator, classifier


class LinearGenerator(nn.Module):
    """Images that are a linear function of the noise."""

    def __init__(self, z_dim=5):
        super().__init__()
        self.z_dim = z_dim
        self.linear = nn.Linear(z_dim, 3 * 4 * 4)

    def forward(self, noise):
        return self.linear(noise).view(-1, 3, 4, 4)


class LinearClassifier(nn.Module):
    """Logits that are a linear function of the images."""

    def __init__(self, num=6):
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 4, num)

    def forward(self, images):
        return self.linear(images.flatten(1))


def linear_pair(seed=0):
    torch.manual_seed(seed)
    generator, classifier = LinearGenerator().double(), LinearClassifier().double()
    return generator, classifier, classifier.linear.weight @ generator.linear.weight  # logits = J z + const


def run(generator, classifier, noise, rows, method, num_steps, precision: Precision = "64-true", shown=()):
    trainer = Trainer(accelerator="cpu", devices=1, precision=precision, enable_progress_bar=False, **TRAINER_SETTINGS)
    sigma = torch.ones(rows.kept.shape[1])
    module = LatentSteering(generator, classifier, noise, rows, method, sigma, shown)
    trainer.fit(module, range(num_steps))
    return module.history


def rows_of(num, target=SMILING, sign=1.0, penalty_weight=0.1, step_size=0.1, **more):
    num_logits = 40 if target == SMILING or target == 15 else 6  # the golden networks', or the linear ones'
    return Rows.of_job(num, target, sign, penalty_weight, step_size, torch.arange(num_logits) != target, **more)


def joined(*jobs):
    return Rows.joined(jobs)


@pytest.mark.parametrize(("case", "penalty"), [("smiling_plain", 0.0), ("smiling_penalty0.1", 0.1)])
def test_published_history_is_reproduced_in_float64(case, penalty):
    golden = load_file(GOLDEN / "history.safetensors")
    rows = rows_of(4, penalty_weight=penalty)
    noise = golden["noise0"].double()
    history = run(*golden_networks(), noise, rows, Tutorial(ACCUMULATED), 10, shown=(0, 8))
    torch.testing.assert_close(torch.stack(history.noise), golden[f"{case}.noise"], rtol=0, atol=1e-9)
    score = torch.stack(history.scores).mean(dim=1)
    torch.testing.assert_close(score.float(), golden[f"{case}.score"], rtol=0, atol=1e-6)
    torch.testing.assert_close(history.logits[0], golden["logits0"], rtol=0, atol=1e-9)
    pictures = torch.stack([history.images[0], history.images[8]])[:, :2]
    wanted = golden[f"{case}.images_step0_step8"].float()
    distances = [(candidate - wanted).abs().max() for candidate in (pictures, (pictures + 1) / 2)]
    assert min(distances) < 1e-3


def test_one_parameter_and_nothing_else_in_the_state():
    generator, classifier = golden_networks()
    module = LatentSteering(generator, classifier, torch.randn(2, 64), rows_of(2), Ascent(PLAIN), torch.ones(40))
    assert [name for name, _ in module.named_parameters()] == ["noise"]
    assert list(module.state_dict()) == ["noise"]
    run(generator, classifier, torch.randn(2, 64), rows_of(2), Ascent(PLAIN), 1)
    assert list(module.state_dict()) == ["noise"]


class Detached(nn.Module):
    """A network that gives what another does, without its gradients."""

    def __init__(self, network, how):
        super().__init__()
        self.network, self.how = network, how
        self.z_dim = getattr(network, "z_dim", None)

    def forward(self, inputs):
        with self.how():
            return self.network(inputs).clone()


@pytest.mark.parametrize("how", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("role", ["generator", "classifier"])
@pytest.mark.parametrize("method", [Tutorial(ACCUMULATED), Ascent(PLAIN), Penalty(PLAIN), Projected(PLAIN)])
def test_a_network_without_gradients_is_named_by_methods_that_need_them(how, role, method):
    generator, classifier, _ = linear_pair()
    if role == "generator":
        generator = Detached(generator, how)
    else:
        classifier = Detached(classifier, how)
    with pytest.raises(ValueError, match=f"^{role}.network computes without gradients, as under torch.no_grad"):
        run(generator, classifier, torch.randn(2, 5).double(), rows_of(2, target=0), method, 2)
    without = BestOf(PLAIN, samples=(torch.randn(8, 5), torch.randn(8, 6)))
    history = run(generator, classifier, torch.randn(2, 5).double(), rows_of(2, target=0), without, 2)
    assert len(history.scores) == 2


def test_networks_are_left_byte_for_byte_as_they_were():
    generator, classifier = golden_networks()
    generator.train()  # a caller's mistake that must neither change statistics nor the result
    before = copy.deepcopy([generator.state_dict(), classifier.state_dict()])
    noise = torch.randn(2, 64)
    history = run(generator, classifier, noise, rows_of(2), Ascent(PLAIN), 3, precision="32-true")
    for state, network in zip(before, (generator, classifier), strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
    again = run(generator.eval(), classifier, noise, rows_of(2), Ascent(PLAIN), 3, precision="32-true")
    assert torch.equal(history.noise[-1], again.noise[-1])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_ascent_on_linear_networks_walks_straight_along_the_unit_gradient(sign):
    generator, classifier, jacobian = linear_pair()
    noise = torch.randn(3, 5, dtype=torch.float64)
    rows = rows_of(3, target=2, sign=sign, penalty_weight=0.0, step_size=0.3)
    history = run(generator, classifier, noise, rows, Ascent(PLAIN), 4)
    unit = jacobian[2] / jacobian[2].norm()
    for step, reached in enumerate(history.noise):
        torch.testing.assert_close(reached, noise + sign * step * 0.3 * unit)


def test_the_penalty_turns_the_path_away_from_the_other_attributes():
    generator, classifier, jacobian = linear_pair()
    noise = torch.zeros(1, 5, dtype=torch.float64)
    others = [k for k in range(6) if k != 1]

    def collateral(penalty_weight):
        rows = rows_of(1, target=1, penalty_weight=penalty_weight, step_size=0.1)
        moved = run(generator, classifier, noise, rows, Ascent(PLAIN), 20).noise[-1][0]
        return (jacobian[others] @ moved).norm() / (jacobian[1] @ moved).abs()

    assert collateral(0.5) < 0.9 * collateral(0.0)


def test_second_step_of_the_penalised_tutorial_follows_the_formula():
    generator, classifier, jacobian = linear_pair()
    noise = torch.randn(4, 5, dtype=torch.float64)
    rows = rows_of(4, target=0, penalty_weight=0.2, step_size=0.1)
    history = run(generator, classifier, noise, rows, Tutorial(ACCUMULATED), 2)
    others = jacobian[1:]
    first = jacobian[0] / 4  # the norm's gradient counts as zero at no change
    z1 = noise + 0.1 * first
    change = (z1 - noise) @ others.T
    second = first - 0.2 / 4 * (change / change.norm(dim=1, keepdim=True)) @ others
    torch.testing.assert_close(history.noise[1], z1)
    torch.testing.assert_close(history.noise[2], z1 + 0.1 * (first + second))  # accumulated: momentum 1


def test_the_stated_formula_is_the_tutorial_without_momentum():
    generator, classifier, jacobian = linear_pair()
    noise = torch.randn(2, 5, dtype=torch.float64)
    rows = rows_of(2, target=0, penalty_weight=0.0, step_size=0.1)
    history = run(generator, classifier, noise, rows, Tutorial(PLAIN), 3)
    torch.testing.assert_close(history.noise[-1], noise + 3 * 0.1 * jacobian[0] / 2)


@settings(max_examples=5)
@given(st.permutations(range(5)), st.integers(1, 4))
def test_an_images_ascent_does_not_depend_on_who_shares_its_batch(order, cut):
    generator, classifier = golden_networks()
    noise = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)).double()
    together = run(generator, classifier, noise, rows_of(5), Ascent(PLAIN), 3).noise[-1]
    chosen = list(order)[:cut]
    alone = run(generator, classifier, noise[chosen], rows_of(cut), Ascent(PLAIN), 3).noise[-1]
    torch.testing.assert_close(alone, together[chosen], rtol=0, atol=1e-9)


GLOBAL = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)).double()
METHODS = [
    *(Ascent(PLAIN), Ascent(PLAIN, on_shell=True), Tutorial(ACCUMULATED), Penalty(PLAIN)),
    *(Projected(PLAIN, refresh_every=3, pull=0.2), Projected(PLAIN, image_weight=1.0, num_pairs=1, radius=0.2)),
    Projected(PLAIN, global_weight=0.5, directions=GLOBAL),
    Direction(PLAIN, directions=GLOBAL),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_rows_of_several_jobs_move_as_each_job_alone(method):
    generator, classifier = golden_networks()
    noise = torch.randn(5, 64, generator=torch.Generator().manual_seed(2)).double()
    one = rows_of(2, penalty_weight=0.0, step_size=0.1)
    two = rows_of(3, target=15, sign=-1.0, penalty_weight=1.0, step_size=0.3)
    both = run(generator, classifier, noise, joined(one, two), method, 4)
    for part, rows in ((slice(0, 2), one), (slice(2, 5), two)):
        alone = run(generator, classifier, noise[part], rows, method, 4)
        torch.testing.assert_close(both.noise[-1][part], alone.noise[-1], rtol=0, atol=1e-9)
        torch.testing.assert_close(both.scores[-1][part], alone.scores[-1], rtol=0, atol=1e-9)


def test_every_ascent_step_has_the_rows_step_size():
    generator, classifier = golden_networks()
    rows = joined(rows_of(2, step_size=0.1), rows_of(2, step_size=0.7))
    history = run(generator, classifier, torch.randn(4, 64), rows, Ascent(PLAIN), 3, precision="32-true")
    lengths = torch.stack(history.noise).diff(dim=0).norm(dim=2)
    torch.testing.assert_close(lengths, torch.tensor([0.1, 0.1, 0.7, 0.7]).expand(3, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "size, z_dim, length", [("auto", 64, 0.25), ("auto", 256, 0.5), ("auto", 100, 0.3125), (2, 9, 2)]
)
def test_an_automatic_step_is_a_share_of_the_shells_radius(size, z_dim, length):
    assert step_length(size, z_dim) == length


def test_steps_shrink_or_grow_evenly_to_the_last_ones_size():
    generator, classifier = golden_networks()
    rows = joined(rows_of(1, step_size=0.5, last_step_size=0.1), rows_of(1, step_size=0.1, last_step_size=0.2))
    history = run(generator, classifier, torch.randn(2, 64), rows, Ascent(PLAIN), 5, precision="32-true")
    lengths = torch.stack(history.noise).diff(dim=0).norm(dim=2)
    expected = torch.tensor([[0.5, 0.4, 0.3, 0.2, 0.1], [0.1, 0.125, 0.15, 0.175, 0.2]]).T
    torch.testing.assert_close(lengths, expected, rtol=1e-4, atol=1e-5)


def test_a_single_step_has_the_first_size():
    generator, classifier = golden_networks()
    rows = rows_of(1, step_size=0.5, last_step_size=0.1)
    history = run(generator, classifier, torch.randn(1, 64), rows, Ascent(PLAIN), 1, precision="32-true")
    torch.testing.assert_close((history.noise[1] - history.noise[0]).norm(), torch.tensor(0.5), rtol=1e-4, atol=1e-5)


def test_on_the_shell_every_row_keeps_its_norm():
    generator, classifier = golden_networks()
    noise = torch.randn(3, 64)
    rows = rows_of(3, step_size=0.5)
    history = run(generator, classifier, noise, rows, Ascent(PLAIN, on_shell=True), 5, precision="32-true")
    torch.testing.assert_close(history.noise[-1].norm(dim=1), noise.norm(dim=1))
    assert (history.noise[-1] - noise).norm(dim=1).min() > 0.5


def test_a_step_that_overflows_is_an_error_of_its_row_and_not_a_jump_to_zero():
    generator, classifier, _ = linear_pair()
    generator, classifier, noise = generator.float(), classifier.float(), torch.randn(2, 5)
    rows = joined(*(rows_of(1, target=1, step_size=size, penalty_weight=0.0) for size in (1e25, 0.5)))
    history = run(generator, classifier, noise, rows, Ascent(PLAIN, on_shell=True), 3, precision="32-true")
    assert (history.noise[-1][1].norm() - noise[1].norm()).abs() < 1e-4
    with pytest.raises(NonFiniteScore, match=r"step 1 in rows \[0\]"):
        history.check_finite(generator)


def test_an_optimizer_that_couples_images_is_refused():
    generator, classifier, _ = linear_pair()
    method = Ascent(partial(torch.optim.LBFGS, lr=1))
    with pytest.raises(ValueError, match=r"method.optimizer._target_=LBFGS must step each number by itself"):
        run(generator, classifier, torch.randn(2, 5).double(), rows_of(2, target=1), method, 1)


def test_any_torch_optimizer_drives_the_noise():
    generator, classifier = golden_networks()
    rows = rows_of(2, step_size=0.05, penalty_weight=0.0)
    history = run(
        generator, classifier, torch.randn(2, 64), rows, Ascent(partial(torch.optim.Adam, lr=1)), 5, "32-true"
    )
    first = (history.noise[1] - history.noise[0]).abs()
    torch.testing.assert_close(first, torch.full_like(first, 0.05), rtol=1e-2, atol=1e-3)  # Adam's first step is ±lr
    assert history.scores[-1].mean() > history.scores[0].mean()


@pytest.mark.parametrize("penalty_weight", [0.0, 0.1, 1e6])
def test_projection_on_linear_networks_is_the_damped_least_squares_step(penalty_weight):
    generator, classifier, jacobian = linear_pair()
    noise = torch.randn(2, 5, dtype=torch.float64)
    rows = rows_of(2, target=2, penalty_weight=penalty_weight, step_size=0.3)
    history = run(generator, classifier, noise, rows, Projected(PLAIN, on_shell=False), 1)
    others = jacobian[[0, 1, 3, 4, 5]]
    # argmin ½‖d − g‖² + w/2 ‖J d‖², by its normal equations, with w = 64 λ
    wanted = torch.linalg.solve(torch.eye(5) + 64 * penalty_weight * others.T @ others, jacobian[2])
    torch.testing.assert_close(history.noise[1] - noise, 0.3 * (wanted / wanted.norm()).expand(2, -1))


def test_full_projection_leaves_the_kept_logits_where_they_are():
    generator, classifier, jacobian = linear_pair()
    kept = torch.tensor([True, True, False, False, True, False])  # three of them in five dimensions leave room
    rows = Rows.of_job(2, 2, 1.0, 1e8, 0.3, kept)
    noise = torch.randn(2, 5, dtype=torch.float64)
    history = run(generator, classifier, noise, rows, Projected(PLAIN, on_shell=False), 4)
    change = history.logits[-1] - history.logits[0]
    torch.testing.assert_close(change[:, kept], torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-6)
    assert change[:, 2].min() > 0.1


def test_a_secant_makes_the_change_that_was_seen_and_leaves_what_is_square_to_the_step():
    torch.manual_seed(0)
    before, step, change = (torch.randn(*shape).double() for shape in ((3, 4, 6), (3, 6), (3, 4)))
    after = secant(before, step, change)
    torch.testing.assert_close(torch.einsum("rkz,rz->rk", after, step), change)
    other = torch.randn(3, 6).double()
    square = other - (other * step).sum(1, keepdim=True) / step.square().sum(1, keepdim=True) * step
    torch.testing.assert_close(torch.einsum("rkz,rz->rk", after, square), torch.einsum("rkz,rz->rk", before, square))
    assert torch.equal(secant(before, torch.zeros_like(step), torch.zeros_like(change)), before)  # a row that stands


class Bent(nn.Module):
    """Of two logits x and y: x, and y + x²/2, which only stays if y falls as x rises."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images):
        logits = self.classifier(images)
        return torch.stack([logits[:, 0], logits[:, 1] + (logits[:, 0] - 1).square() / 2], dim=1)


def test_one_jacobian_that_learns_from_each_step_holds_what_bends_away():
    generator, classifier, _ = linear_pair()
    noise = torch.zeros(1, 5, dtype=torch.float64)
    rows = Rows.of_job(1, 0, 1.0, 1e6, 0.3, torch.tensor([False, True]))
    method = Projected(PLAIN, on_shell=False, refresh_every=40)
    history = run(generator, Bent(classifier), noise, rows, method, 40)
    rose, drifted = (history.logits[-1] - history.logits[0])[0]
    assert rose > 1
    assert drifted.abs() < 0.1 * rose.square() / 2  # of what a straight way would bring


def test_the_mean_gradient_leads_as_much_as_its_weight_says():
    generator, classifier, jacobian = linear_pair()
    noise, directions = torch.randn(1, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    rows = rows_of(1, target=2, sign=-1.0, penalty_weight=0.0, step_size=0.3)
    method = Projected(PLAIN, on_shell=False, global_weight=0.7, directions=directions)
    history = run(generator, classifier, noise, rows, method, 1)
    led = -jacobian[2] / jacobian[2].norm() - 0.7 * directions[2] / directions[2].norm()
    torch.testing.assert_close(history.noise[1] - noise, (0.3 * led / led.norm())[None])


def test_the_image_metric_is_what_a_step_changes_in_the_pixels():
    generator, classifier, _ = linear_pair()
    noise = torch.randn(2, 5, dtype=torch.float64)
    rows = rows_of(2, target=2, penalty_weight=0.0, step_size=0.3)
    method = Projected(PLAIN, on_shell=False, image_weight=3.0, num_probes=4000)
    history = run(generator, classifier, noise, rows, method, 1)
    metric = generator.linear.weight.T @ generator.linear.weight
    gradient = classifier.linear.weight[2] @ generator.linear.weight
    wanted = torch.linalg.solve(torch.eye(5) + 3 * 5 * metric / metric.trace(), gradient).detach()
    found = (history.noise[1] - noise)[0]
    assert torch.cosine_similarity(found, wanted, dim=0) > 0.999


def test_pulling_back_takes_drift_away():
    generator, classifier = golden_networks()
    noise = torch.randn(3, 64, generator=torch.Generator().manual_seed(4)).double()
    drift = []
    for pull in (0.0, 0.5):
        history = run(generator, classifier, noise, rows_of(3, step_size=0.5), Projected(PLAIN, pull=pull), 8)
        change = history.logits[-1] - history.logits[0]
        drift.append(change[:, torch.arange(40) != SMILING].norm() / change[:, SMILING].norm())
    assert drift[1] < drift[0]


def test_the_smooth_penalty_acts_from_the_second_step_by_its_formula():
    generator, classifier, jacobian = linear_pair()
    noise = torch.randn(1, 5, dtype=torch.float64)
    rows = rows_of(1, target=2, penalty_weight=0.7, step_size=0.3)
    history = run(generator, classifier, noise, rows, Penalty(PLAIN, on_shell=False), 2)
    first = 0.3 * jacobian[2] / jacobian[2].norm()
    torch.testing.assert_close(history.noise[1][0] - noise[0], first)
    others = jacobian[[0, 1, 3, 4, 5]]
    climbed = jacobian[2] - 0.7 * others.T @ (others @ first)
    torch.testing.assert_close(history.noise[2] - history.noise[1], (0.3 * climbed / climbed.norm())[None])


def test_a_direction_is_the_same_for_every_image():
    generator, classifier, jacobian = linear_pair()
    noise = torch.randn(3, 5, dtype=torch.float64)
    rows = joined(rows_of(2, target=2, penalty_weight=0.0), rows_of(1, target=3, sign=-1.0, penalty_weight=0.0))
    history = run(generator, classifier, noise, rows, Direction(PLAIN, directions=jacobian), 3)
    wanted = torch.stack([jacobian[2], jacobian[2], -jacobian[3]])
    moved = 3 * 0.1 * wanted / wanted.norm(dim=1, keepdim=True)
    torch.testing.assert_close(history.noise[-1] - noise, moved)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_row_stops_once_its_logit_has_reached_what_was_wanted(sign):
    generator, classifier, jacobian = linear_pair()
    noise = torch.zeros(2, 5, dtype=torch.float64)
    plain = run(generator, classifier, noise, rows_of(2, target=2, sign=sign, penalty_weight=0.0), Ascent(PLAIN), 6)
    goal = sign * plain.logits[3][0, 2].item() - 1e-9
    rows = joined(
        rows_of(1, target=2, sign=sign, penalty_weight=0.0, until=goal),
        rows_of(1, target=2, sign=sign, penalty_weight=0.0),
    )
    history = run(generator, classifier, noise, rows, Ascent(PLAIN), 6)
    for step in range(7):
        torch.testing.assert_close(history.noise[step][0], plain.noise[min(step, 3)][0])
        torch.testing.assert_close(history.noise[step][1], plain.noise[step][1])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_responds_to_the_penalty_weight(method):
    generator, classifier = golden_networks()
    noise = torch.randn(2, 64, generator=torch.Generator().manual_seed(2)).double()
    ends = [
        run(generator, classifier, noise, rows_of(2, penalty_weight=weight), method, 3).noise[-1]
        for weight in (0.0, 1.0)
    ]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_a_row_without_gradient_stays():
    generator, classifier, _ = linear_pair()
    nn.init.zeros_(classifier.linear.weight)
    noise = torch.randn(2, 5, dtype=torch.float64)
    history = run(generator, classifier, noise, rows_of(2, target=0), Ascent(PLAIN), 2)
    assert torch.equal(history.noise[-1], noise)


def test_history_records_before_each_step_and_after_the_last():
    generator, classifier = golden_networks()
    noise = torch.randn(2, 64)
    history = run(generator, classifier, noise, rows_of(2), Ascent(PLAIN), 5, "32-true", shown=(0, 2, 4))
    assert (len(history.noise), len(history.logits), len(history.scores)) == (6, 6, 5)
    assert sorted(history.images) == [0, 2, 4, 5]
    assert torch.equal(history.noise[0], noise)
    torch.testing.assert_close(history.images[5], generator(history.noise[5]).detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(history.logits[5], classifier(history.images[5]).detach(), rtol=0, atol=1e-3)


def test_bfloat16_goes_the_same_way_roughly():
    generator, classifier = golden_networks()
    noise = torch.randn(4, 64, generator=torch.Generator().manual_seed(3))
    moves = []
    for precision in ("32-true", "bf16-mixed"):
        history = run(generator, classifier, noise, rows_of(4, penalty_weight=0.0), Ascent(PLAIN), 3, precision)
        assert history.noise[-1].dtype == torch.float32
        moves.append(history.noise[-1] - noise)
    assert nn.functional.cosine_similarity(*moves).min() > 0.9


def test_scores_that_are_not_finite_spoil_no_other_row_and_keep_what_was_recorded():
    generator, classifier, _ = linear_pair()
    rows = joined(rows_of(2, target=0, penalty_weight=0.0), rows_of(1, target=0, step_size=1e308))
    noise = torch.ones(3, 5, dtype=torch.float64)
    history = run(generator, classifier, noise, rows, Ascent(partial(torch.optim.SGD, lr=1e10)), 3)
    with pytest.raises(NonFiniteScore, match=r"step 1 in rows \[2\]") as caught:
        history.check_finite(generator)
    assert len(caught.value.history.noise) == 1
    history.of_rows(slice(0, 2)).check_finite(generator)  # the others' rows are not spoilt
