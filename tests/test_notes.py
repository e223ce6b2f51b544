"""The Julia notes replayed: published numbers of rmsrosa/random_notes (CC BY 4.0), Julia 1.12.1.

Every number below is printed on, or read off a figure of, the page that its test names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from diffscience import notes
from diffscience.errors import ArgumentError
from diffscience.julia import Xoshiro, network, span
from diffscience.notes import first_run, sample_points, second_run
from diffscience.regression import Adam, Array, Params, Regression, apply, relu, sigmoid

# Page ddpm, first run: epochs 0, 50, …, 1000.
FIRST = [
    4954.146151722542, 11.960118757663027, 1.8538717815733554, 1.1730596953348047,
    1.0685916129266246, 0.855112284221514, 0.7459049432281369, 0.6600571158186551,
    0.6115033109385754, 0.5164752037314564, 0.42767928083481627, 0.43484322635710465,
    0.43214275658446916, 0.35482598750891536, 0.3174688932646217, 0.32403858852006084,
    0.2862748682905556, 0.3042753822298034, 0.27124121828363673, 0.26418666103080246,
    0.2552029689546693,
]  # fmt: skip
# Second run: epochs 0, 250, …, 5000.
SECOND = [
    4757.573961159425, 1.0479398503588586, 0.9578998066030769, 0.8026084715244524,
    0.7372313528400609, 0.7501348396679405, 0.6501434701077246, 0.6622920513058729,
    0.6183539152632823, 0.6347250798299169, 0.6275078080690096, 0.6166220813508866,
    0.6191777540370489, 0.608400374107472, 0.5770053988460424, 0.5422083398696724,
    0.5962286687384684, 0.5488858003857224, 0.6302290875696326, 0.6552777095659242,
    0.6092394558000195,
]  # fmt: skip


@cache
def replay() -> notes.Replay:
    """The first run in full, once for all tests."""
    return first_run()


def test_ddpm_before_training() -> None:
    run = replay()
    assert run.checked == pytest.approx(4833.970922739681, rel=1e-12)
    assert run.initial == pytest.approx(FIRST[0], rel=1e-12)
    weight, bias = run.start[0]
    assert weight[[0, 63]].ravel().tolist() == [
        np.float32(x) for x in (0.9099216, 1.7035809, -2.008759, 1.904416)
    ]
    assert bias[[0, 5, 63]].tolist() == [
        np.float32(x) for x in (0.32088393, -0.60737354, -0.312054)
    ]


def test_ddpm_first_run() -> None:
    """All 21 losses; 1e-15 apart where written, 1e-5 allows another processor's last bits."""
    losses = replay().trained.losses[49::50]
    assert losses == pytest.approx(FIRST[1:], rel=1e-5)
    assert losses[:10] == pytest.approx(FIRST[1:11], rel=1e-8)


def test_ddpm_first_samples() -> None:
    """Counts of the published histogram, bins of width 2 from −2 (the bars of its figure)."""
    counts = np.histogram(replay().backward[0], np.arange(-2, 110, 2))[0]
    published = np.zeros(55, int)
    published[:12] = [24, 818, 128, 27, 9, 2, 4, 3, 3, 2, 1, 1]
    published[[18, 54]] = 1
    assert counts.tolist() == published.tolist()


def test_ddpm_forward_demo() -> None:
    """The central bars of the published histogram of x_K, bins of width 0.1 from −0.5."""
    counts = np.histogram(replay().forward[-1], np.round(np.arange(-5, 11) / 10, 1))[0]
    published = [24, 32, 67, 38, 48, 37, 34, 39, 46, 49, 36, 32, 33, 26, 25]
    assert counts.tolist() == published


def test_ddpm_second_run() -> None:
    run = second_run(replay())
    assert run.initial == pytest.approx(SECOND[0], rel=1e-12)
    losses = run.trained.losses[249::250]
    assert losses[:4] == pytest.approx(SECOND[1:5], rel=1e-6)
    assert losses == pytest.approx(SECOND[1:], rel=1e-3)  # rounding may grow over 5000 epochs


def test_ddpm_twins_fail() -> None:
    """A stream off by one draw, and a step size 5 % too small."""
    rng = Xoshiro(12345)
    points, betas = sample_points(rng), notes.linear_betas()
    rng.randn()
    notes.forward_chain(rng, points, betas)
    start = network(rng, (2, 64, 1))
    assert notes.loss(rng, points, betas, start) != pytest.approx(FIRST[0], rel=1e-3)
    run = replay()
    slower = notes.train(run.rng.copy(), run.points, run.betas, run.start, 50, 0.00095)
    assert slower.losses[-1] != pytest.approx(FIRST[1], rel=1e-2)


def test_sampler_steps_with_beta_as_published() -> None:
    """Row by row from its own noise; the step with √β must differ."""
    rng = Xoshiro(1)
    betas = notes.linear_betas(40)
    params = [(np.float32(0.1) * w, np.float32(0.1) * b) for w, b in network(rng, (2, 8, 1))]
    x_end = rng.randn(50)
    noise = rng.copy().randn((40, 50))
    chain = notes.backward_chain(rng, x_end, betas, params)
    assert np.array_equal(chain[-1], x_end)
    alpha_bar = np.cumprod(1 - betas)
    for k in (40, 20, 2):
        x, beta = chain[k - 1], betas[k - 1]
        eps = apply(params, np.stack([x, np.full(50, k)], -1))[:, 0]
        mean = (x - beta / np.sqrt(1 - alpha_bar[k - 1]) * eps) / np.sqrt(1 - beta)
        given = chain[k - 2] - mean
        size = 1e-12 * np.abs(chain[k - 2]).max()
        assert np.allclose(given, beta * noise[k - 2], atol=size)
        assert not np.allclose(given, np.sqrt(beta) * noise[k - 2], rtol=0.05, atol=size)


def test_snapshots_are_taken_before_the_update_and_training_is_chunked() -> None:
    rng = Xoshiro(3)
    points, betas = sample_points(rng, 100), notes.linear_betas()
    start = network(rng, (2, 8, 8, 1))
    seen: list[tuple[int, float]] = []
    long = notes.train(
        rng.copy(), points, betas, start, 120, 0.01, (0, 1, 61), lambda e, x: seen.append((e, x))
    )
    assert [epoch for epoch, _ in seen] == [50, 100, 120]
    assert seen[-1][1] == long.losses[-1]
    short = notes.train(rng.copy(), points, betas, start, 60, 0.01)
    assert np.array_equal(short.losses, long.losses[:60])
    for layer, twin in zip(short.params, long.snapshots[61], strict=True):
        assert np.array_equal(layer[0], twin[0])
        assert np.array_equal(layer[1], twin[1])
    assert np.array_equal(long.snapshots[1][0][0], start[0][0])
    assert np.array_equal(long.snapshots[0][0][0], start[0][0])
    assert start[0][0].dtype == long.params[0][0].dtype == np.float32


def test_an_interrupt_in_progress_stops_training() -> None:
    def stop(epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    rng = Xoshiro(3)
    with pytest.raises(KeyboardInterrupt):
        notes.train(
            rng, sample_points(rng, 9), notes.linear_betas(), network(rng, (2, 4, 1)), 99,
            progress=stop,
        )  # fmt: skip


@pytest.mark.parametrize("widths", [(2, 1), (2, 5, 1), (1, 7, 3), (3, 6, 5, 4, 2)])
@pytest.mark.parametrize("points", [1, 63, 64, 200])
def test_gradient_is_the_derivative_of_the_loss(widths: tuple[int, ...], points: int) -> None:
    """Against central differences of the plain NumPy network, in float64."""
    rng = Xoshiro(17)
    params = network(rng, widths)
    x, y = rng.randn((points, widths[0])), rng.randn((points, widths[-1]))
    factor = rng.rand((points, widths[-1])) + 0.5
    loss, gradient = Regression(params, 0.1).gradient(x, y, factor)

    def value(p: Params) -> float:
        return float(np.mean((factor * apply(p, x) - y) ** 2))

    assert loss == pytest.approx(value(params), rel=1e-13)
    for layer in range(len(params)):
        for part in range(2):
            for index in (0, -1):
                slope = _difference(value, params, layer, part, index)
                assert gradient[layer][part].ravel()[index] == pytest.approx(
                    slope, rel=2e-6, abs=2e-7
                )


def _difference(
    value: Callable[[Params], float], params: Params, layer: int, part: int, index: int
) -> float:
    step, values = 1e-6, []
    for sign in (1, -1):
        moved = [tuple(np.array(p, float, order="C") for p in pair) for pair in params]
        moved[layer][part].ravel()[index] += sign * step
        values.append(value(moved))  # type: ignore[arg-type]
    return (values[0] - values[1]) / (2 * step)


def test_adam_is_adam() -> None:
    """Against the textbook recursion in float64; a wrong β₂ must differ."""
    rng = Xoshiro(2)
    start = rng.randn(6).astype(np.float32)
    adam = Adam([(start[:4].reshape(2, 2), start[4:])], 0.01)
    theta, m, v = start.astype(float), np.zeros(6), np.zeros(6)
    wrong, w = theta.copy(), np.zeros(6)
    for t in range(1, 21):
        g = rng.randn(6)
        adam.update(g)
        m, v, w = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, 0.99 * w + 0.01 * g**2
        theta -= 0.01 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        wrong -= 0.01 * m / (1 - 0.9**t) / (np.sqrt(w / (1 - 0.99**t)) + 1e-8)
    assert np.allclose(adam.theta, theta, atol=1e-6)
    assert not np.allclose(adam.theta, wrong, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Regression([], 0.1), "params"),
        (lambda: Regression(_layers((2, 3), (4, 1)), 0.1), "params"),
        (lambda: Regression(_layers((2, 1)), 0.0), "rate"),
        (lambda: Regression(_layers((2, 1)), np.nan), "rate"),
        (lambda: Regression(_layers((2, 1)), 0.1).step(np.ones((3, 1)), np.ones((3, 1))), "inputs"),
        (lambda: Regression(_layers((2, 1)), 0.1).step(np.ones((3, 2)), np.ones((2, 1))), "target"),
        (lambda: Adam(_layers((2, 1)), 0.1).update(np.ones(2)), "gradient"),
        (lambda: notes.noised(Xoshiro(0), np.ones(3), [0.1, 1.0]), "betas"),
        (lambda: notes.noised(Xoshiro(0), np.ones(3), []), "betas"),
        (lambda: notes.noised(Xoshiro(0), np.ones((3, 1)), [0.1]), "x0"),
        (lambda: notes.backward_chain(Xoshiro(0), [], [0.1], _layers((2, 1))), "x_end"),
        (
            lambda: notes.train(Xoshiro(0), np.ones(3), [0.1], _layers((2, 1)), -1),
            "epochs",
        ),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.argument == argument


def _layers(*pairs: tuple[int, int]) -> Params:
    return [(np.ones((o, i), np.float32), np.ones(o, np.float32)) for i, o in pairs]


# The other notes: losses before training ----------------------------------------------------------
def _mixture(x: Array, weights: Array, means: Array, std: Array | float) -> tuple[Array, Array]:
    """Density and score of a Gaussian mixture with equal or own widths; x (*b), means (K,)."""
    part = weights * np.exp(-(((x[..., None] - means) / std) ** 2) / 2) / std / np.sqrt(2 * np.pi)
    density = part.sum(-1)
    return density, (part * (means - x[..., None]) / np.square(std)).sum(-1) / density


def _bimodal(x: Array) -> tuple[Array, Array]:
    return _mixture(x, np.array([0.1, 0.9]), np.array([-3.0, 3.0]), 1.0)


def _one_dimensional(gain: float = 2.0) -> tuple[Array, Params]:
    rng = Xoshiro(12345)
    return sample_points(rng), network(rng, (1, 8, 1), gain)


def _net(params: Params, x: Array) -> Array:
    return apply(params, x[:, None])[:, 0]


def test_1d_fd_score_matching() -> None:
    """Page 1d_FD_score_matching: explicit, plain, finite differences on the grid and the sample."""
    points, params = _one_dimensional()
    grid = span(-10, 10, 200)
    density, score = _bimodal(grid)
    error = (_net(params, grid) - score) ** 2
    assert np.mean(density * error) == pytest.approx(0.05891430321572992, rel=1e-10)
    assert np.mean(error) == pytest.approx(6.2528048955176025, rel=1e-10)

    def implicit(x: Array, weight: Array | float, delta: float) -> float:
        forward, backward = _net(params, x + delta), _net(params, x - delta)
        slope, mean = (forward - backward) / (2 * delta), (forward + backward) / 2
        return float(np.mean(weight * (slope + mean**2 / 2)))

    assert implicit(grid, density, 20 / 400) == pytest.approx(0.00510874380657287, rel=1e-10)
    delta = (points.max() - points.min()) / 2048
    assert implicit(points, 1.0, delta) == pytest.approx(0.11494219313979222, rel=1e-10)


def test_parzen_estimation() -> None:
    """Page parzen_estimation_score_matching: explicit against the Parzen score, σ = 0.5."""
    points, params = _one_dimensional()
    _, score = _mixture(points, np.full(1024, 1 / 1024), points, 0.5)
    printed = [0.5909442505839475, 0.15076935144375442, 0.4520888778084795]
    assert score[[0, 1, -1]] == pytest.approx(printed, rel=1e-12)
    loss = np.mean((_net(params, points) - score) ** 2)
    assert loss == pytest.approx(0.9676230699994186, rel=1e-10)


def _noise_levels(rng: Xoshiro, points: Array, sigmas: Array) -> tuple[Array, Array, Array]:
    """Inputs (x̃, σ), targets σ·(x − x̃)/σ² and factors σ: one noise for all levels of a point."""
    noisy = points[:, None] + sigmas * rng.randn((1, len(points))).T
    sigma = np.tile(sigmas, len(points))
    target = ((points[:, None] - noisy) / sigmas).ravel()
    return np.stack([noisy.ravel(), sigma], -1), target[:, None], sigma[:, None]


def test_mdsm() -> None:
    """Page mdsm (noise-conditional score network): first gradient, and 50 epochs of training."""
    rng = Xoshiro(12345)
    points = sample_points(rng)
    params = network(rng, (2, 64, 1))
    sigmas = 2.0 * (0.5 / 2.0) ** (np.arange(16) / 15)
    inputs, target, factor = _noise_levels(rng, points, sigmas)
    loss = float(np.mean((factor * apply(params, inputs) - target) ** 2)) / 2
    assert loss == pytest.approx(22.073953377107767, rel=1e-10)
    half = np.sqrt(0.5)  # the note's loss has a factor ½
    fit = Regression(params, 0.01)
    for _ in range(50):
        inputs, target, factor = _noise_levels(rng, points, sigmas)
        loss = fit.step(inputs, half * target, half * factor)
    assert loss == pytest.approx(0.421606670713073, rel=1e-6)


def test_score_based_sde() -> None:
    """Page score_based_sde: VE with σ(t) = √t; first gradient and the first ten epochs."""
    rng = Xoshiro(12345)
    points = rng.mixture([0.8, 0.2], [-1.0, 1.0], [0.4, 0.3], 1024)
    params = network(rng, (2, 64, 64, 1))

    def draw() -> tuple[Array, Array, Array]:
        t = 0.001 + (1.0 - 0.001) * rng.rand(1024)
        z = rng.randn((1, 1024))[0]
        return np.stack([points + np.sqrt(t) * z, t], -1), -z[:, None], np.sqrt(t)[:, None]

    inputs, target, factor = draw()
    loss = np.mean((factor * apply(params, inputs) - target) ** 2)
    assert loss == pytest.approx(0.7814519262720458, rel=1e-10)
    fit = Regression(params, 0.01)
    printed = [
        0.8093904260312036, 4.821426102198947, 0.9013738077191955, 1.7976587139820184,
        2.782252381743502, 1.5579457501875367, 0.8443466813768792, 0.6954447384198809,
        1.0341504711609282, 1.2348369584320722,
    ]  # fmt: skip
    assert [fit.step(*draw()) for _ in printed] == pytest.approx(printed, rel=1e-9)


def test_score_matching_neural_network() -> None:
    """Page score_matching_neural_network: Hyvärinen's loss and its regularised form, 25 epochs.

    The page prints no loss before epoch 25. With ψ = V·s + c, s = σ(Wx + b), the derivative is
    ψ′ = Σ V W s(1 − s).
    """
    points, start = _one_dimensional(gain=1.0)
    assert start[0][0][0, 0] == np.float32(-0.0017783825)
    for weight, printed in ((0.0, -0.04234274469272623), (0.1, -0.04172276502849598)):
        adam = Adam(start, 0.01)
        for _ in range(25):
            loss, gradient = _hyvarinen(adam.params, points, weight)
            adam.update(gradient)
        assert loss == pytest.approx(printed, rel=1e-7)


def _hyvarinen(params: Params, x: Array, weight: float) -> tuple[float, Array]:
    """mean (ψ′ + ½ψ² + weight·ψ′²) and its gradient over (W, b, V, c)."""
    (w, b), (v, c) = [(p[0].astype(float), p[1].astype(float)) for p in params]
    s = sigmoid(x[:, None] * w[:, 0] + b)
    s1 = s * (1 - s)
    s2 = s1 * (1 - 2 * s)
    psi, slope = s @ v[0] + c[0], s1 @ (v[0] * w[:, 0])
    d_psi, d_slope = psi / len(x), (1 + 2 * weight * slope) / len(x)
    d_v = d_psi @ s + (d_slope @ s1) * w[:, 0]
    d_b = (d_psi @ s1 + (d_slope @ s2) * w[:, 0]) * v[0]
    d_w = ((d_psi * x) @ s1 + ((d_slope * x) @ s2) * w[:, 0] + d_slope @ s1) * v[0]
    gradient = np.concatenate([d_w, d_b, d_v, [d_psi.sum()]])
    return float(np.mean(slope + psi**2 / 2 + weight * slope**2)), gradient


def test_2d_fd_score_matching() -> None:
    """Page 2d_FD_score_matching: both losses, and C = ½E|s|² on the mesh and on samples."""
    weights, means = np.array([0.4, 0.4, 0.2]), np.array([[-3.0, -3], [3, 3], [-1, 1]])

    def law(x: Array) -> tuple[Array, Array]:
        away = means - x[..., None, :]
        part = weights * np.exp(-(away**2).sum(-1) / 2) / (2 * np.pi)
        density = part.sum(-1)
        return density, (part[..., None] * away).sum(-2) / density[..., None]

    def constant(x: Array) -> float:
        return float(np.mean((law(x)[1] ** 2).sum(-1)) / 2)

    rng = Xoshiro(12345)
    points = rng.mixture(weights, means, [np.eye(2)] * 3, 1024)
    params = network(rng, (2, 16, 2))
    axis = span(-8, 8, 120)
    density, score = law(np.stack(np.meshgrid(axis, axis), -1))
    c = np.sum(density * (score**2).sum(-1)) * (16 / 119) ** 2 / 2
    assert c == pytest.approx(0.8921462840364986, rel=1e-12)
    assert constant(points) == pytest.approx(0.9129656846610863, rel=1e-12)

    explicit = np.mean((apply(params, points) - law(points)[1]) ** 2)
    assert explicit == pytest.approx(32.62664847852629, rel=1e-10)
    delta = np.ptp(points, axis=0) / 2048
    assert delta == pytest.approx([0.00581614558657555, 0.006593323926327331], rel=1e-12)
    steps = np.diag(delta)
    forward = [apply(params, points + step) for step in steps]
    backward = [apply(params, points - step) for step in steps]
    slopes = [np.mean((forward[i] - backward[i])[:, i]) / (2 * delta[i]) for i in range(2)]
    implicit = np.mean((sum(forward + backward) / 4) ** 2) + sum(slopes)
    assert implicit == pytest.approx(31.673041841884316, rel=1e-10)
    assert implicit + c == pytest.approx(32.56518812592081, rel=1e-10)

    printed = [1.1538119449520563, 1.2247351227578578, 1.1028524320443522, 0.9920784868026302]
    for n, value in zip((1, 10, 20, 50), printed, strict=True):  # the stream goes on
        sample = rng.mixture(weights, means, [np.eye(2)] * 3, n)
        assert constant(sample) == pytest.approx(value, rel=1e-12)


def test_score_matching_aapo() -> None:
    """Page score_matching_aapo: the best of a grid of Gaussians, printed with four decimals."""
    points = Xoshiro(234).mixture([0.4, 0.6], [2.0, 4.0], [1.0, 1.0], 100)
    mu = np.linspace(points.min() - 0.5, points.max() + 0.5, 400)
    sigma = span(0.1, 6, 200)
    squares = np.mean((points[:, None] - mu) ** 2, 0)
    loss = squares[:, None] / sigma**4 / 2 - 1 / sigma**2
    i, j = np.unravel_index(loss.argmin(), loss.shape)
    assert f"μ = {mu[i]:.4f}, σ = {sigma[j]:.4f}" == "μ = 3.0819, σ = 1.4045"


def test_relu_and_one_point() -> None:
    assert relu(np.array([-1.0, 0.0, 2.0])).tolist() == [0.0, 0.0, 2.0]
    params = network(Xoshiro(1), (2, 4, 1))
    assert apply(params, [1.0, 2.0]) == pytest.approx(apply(params, [[1.0, 2.0]])[0])
