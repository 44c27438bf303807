"""Experts that multiply. Hinton 2002, *Training products of experts by minimizing contrastive divergence*.

On clusters at the places of a grid in the plane, one of which is left empty: a product of uni-Gauss experts, learned by
one sweep of Gibbs sampling from the rows. An expert may rule a line of places, so the clusters are where lines meet,
and few experts make many clusters; what they cannot say is that one meeting is empty. log Z is a sum over a grid of
points, so log p of held-out rows is exact to its last digit shown. Beside it: mixtures of Gaussians, by EM.

On the digits: a restricted Boltzmann machine for each class, whose hidden units are its experts, and a logistic
regression on the unnormalised log scores of all machines. Without it the smallest free energy would have to tell the
class, and log Z, which nobody knows, is missing in that. The paper's digits are those of USPS, which are not at hand:
these are the 60,000 and 10,000 of MNIST. The rate was chosen on the last 10,000 training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from ravine._tree import Fixed, Linear, Part, unfix
from ravine.core import AbstractEnergy, AbstractKernel, Metrics, Row
from ravine.data import ArraySource, load_dataset
from ravine.models.experts import GaussianExpert, Many, ProductOfExperts, UniGauss
from ravine.models.moves import AbstractMoves
from ravine.objectives import Contrast
from ravine.recipes.product_of_experts import ProductOfExpertsClassifier
from ravine.rules import Contrastive, ContrastiveDivergence, Optimiser
from ravine.train import Stage, train

SCALES: Mapping[str, Mapping[str, Any]] = {
    "small": {"data": "clusters", "experts": 15, "steps": 6_000, "rate": 0.05},
    "digits": {"data": "digits", "experts": 100, "steps": 2_000, "rate": 0.1},
}
Points = Float[np.ndarray, "n 2"]

SIDE, EMPTY, SPREAD = 5, (1, 1), 0.15  # clusters at the whole numbers of a square, and what they are as wide as
ROWS, HELD, BATCH = 2000, 10_000, 100
LINE = np.arange(-12.0, 12.0, 0.04)  # what is summed over, in each direction
STRIP = 4.0  # times as long as wide
SHOWN = 400  # rows

DIGITS = "mnist-grey"
REJECTED = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1)
UNSURE = 0.07  # of the rows

PRODUCT, LAW, MIXTURE = "log p, product of experts", "log p, the law of the rows", "log p, mixture of as many Gaussians"
SCORES, NEIGHBOUR = "% wrong, logistic regression on the log scores", "% wrong, nearest neighbour"


def found(seeds: Sequence[int], data: str, experts: int, steps: int, rate: float) -> dict[str, Any]:
    """What was measured of each seed, by name, and what the picture shows of the first seed.

    Examples
    --------
    >>> sorted(found([0], "clusters", experts=2, steps=3, rate=0.1)["shown"])
    ['experts', 'mixture', 'rows']
    """
    runs = _clusters if data == "clusters" else _digits
    return runs(seeds, experts, steps, rate)


def _listed(runs: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {what: [float(f"{run[what]:.6g}") for run in runs] for what in runs[0]}


# --- clusters in the plane


def places() -> Points:
    """The centres of the clusters.

    Examples
    --------
    >>> places().shape
    (24, 2)
    """
    line = np.arange(SIDE) - SIDE // 2
    return np.array([(a, b) for a in line for b in line if (a, b) != EMPTY], float)


def clusters(rows: int, seed: int) -> Points:
    """Rows of round clusters, all as likely."""
    stream, centres = np.random.default_rng(seed), places()
    return centres[stream.integers(len(centres), size=rows)] + SPREAD * stream.normal(size=(rows, 2))


class Switches(AbstractKernel):
    """Gibbs sampling of a product of one Gaussian and many uni-Gauss experts, all at once.

    Given a point, each expert says by itself whether its Gaussian or its flat part is meant; given that, the point is
    drawn from the product of the Gaussians.

    Parameters
    ----------
    model : its experts are a Gaussian, in `Fixed` or not, and `Many` of `UniGauss`.
    row : cells that it holds do not move.
    """

    model: ProductOfExperts
    row: Row | None = None

    def init(self, position: Array, *, key: PRNGKeyArray) -> Array:
        return position if self.row is None else self.row.clamp(position)

    def step(self, state: Array, *, key: PRNGKeyArray) -> tuple[Array, Metrics]:
        switch, shock = jr.split(key)
        wide, many = self.model.experts
        wide, units = cast(GaussianExpert, unfix(wide)), cast(UniGauss, cast(Many, many).experts)
        on = jr.bernoulli(switch, jax.nn.sigmoid(eqx.filter_vmap(lambda unit: _log_odds(unit, state))(units)))
        precisions = jnp.where(on[:, None], jnp.exp(-2 * units.gaussian.log_scale), 0)
        alone = jnp.exp(-2 * wide.log_scale)
        total = alone + precisions.sum(axis=0)
        mean = (alone * wide.location + jnp.sum(precisions * units.gaussian.location, axis=0)) / total
        drawn = mean + jr.normal(shock, state.shape, state.dtype) / jnp.sqrt(total)
        return self.init(drawn, key=key), {}

    def position(self, state: Array) -> Array:
        return state


def _log_odds(unit: UniGauss, x: Array) -> Array:
    """Of the Gaussian part, given a point."""
    bump = -unit.gaussian.energy(x) - jnp.sum(unit.gaussian.log_volume())
    return unit.log_odds + bump + unfix(unit.log_volume)


class Switching(AbstractMoves):
    """Moves by `Switches`."""

    def __call__(self, model: AbstractEnergy, row: Row | None) -> Switches:
        return Switches(cast(ProductOfExperts, model), row)


def untrained(rows: Points, experts: int, *, key: PRNGKeyArray) -> ProductOfExperts:
    """Circles half as wide as the rows, anywhere among them, and one Gaussian twice as wide that does not learn."""
    low, high, wide = rows.min(axis=0), rows.max(axis=0), rows.std(axis=0)
    location = jr.uniform(key, (experts, 2), minval=jnp.asarray(low), maxval=jnp.asarray(high))
    scale = np.broadcast_to(wide / 2, (experts, 2))
    volume = float(np.log(high - low).sum())
    told = {"location": location, "scale": scale, "log_odds": np.zeros(experts), "log_volume": volume}
    return _product(told | {"base": (rows.mean(axis=0), 2 * wide)})


def _product(told: Mapping[str, Any]) -> ProductOfExperts:
    numbers = lambda name: jnp.asarray(told[name], float)  # noqa: E731
    base, odds = Fixed(GaussianExpert.of(*told["base"])), numbers("log_odds")
    flat = Fixed(jnp.full(odds.shape, told["log_volume"]))
    units = UniGauss(GaussianExpert(numbers("location"), jnp.log(numbers("scale"))), odds, flat)
    return ProductOfExperts((base, Many(units)), base, Switching())


def _told(model: ProductOfExperts) -> dict[str, Any]:
    """All that `_product` needs to know."""
    base, units = cast(GaussianExpert, unfix(model.base)), _units(model)
    told = {"location": units.gaussian.location, "scale": jnp.exp(units.gaussian.log_scale), "log_odds": units.log_odds}
    wide = [_rounded(part) for part in (base.location, jnp.exp(base.log_scale))]
    flat = float(unfix(units.log_volume)[0])
    return {name: _rounded(part) for name, part in told.items()} | {"log_volume": flat, "base": wide}


def _units(model: ProductOfExperts) -> UniGauss:
    return cast(UniGauss, cast(Many, model.experts[1]).experts)


def _rounded(numbers: Any) -> list[Any]:
    return np.round(np.asarray(numbers, float), 5).tolist()


def learned(model: ProductOfExperts, rows: Points, steps: int, rate: float, *, key: PRNGKeyArray) -> ProductOfExperts:
    """After contrastive divergence of one sweep; the rate falls to 0 in a line."""
    optimiser = Optimiser(optax.adam, (Linear(rate, 0.0, float(steps)),))
    rule = Contrastive(Contrast(0.0, Part("experts")), ContrastiveDivergence(1), optimiser)
    source = ArraySource(Row(jnp.asarray(rows, float)))
    *_, last = train(model, [Stage(rule, steps, BATCH)], source, key=key)
    return last.state.model


@eqx.filter_jit
def _minus_energies(model: ProductOfExperts, x: Float[Array, "n 2"]) -> Float[Array, " n"]:
    return -jax.vmap(model.energy)(x)


def minus_energies(model: ProductOfExperts, x: Points) -> Float[np.ndarray, " n"]:
    """The unnormalised log p of points."""
    return np.asarray(_minus_energies(model, jnp.asarray(x, float)), float)


def grid(line: np.ndarray) -> Points:
    """Every pair of two numbers of a line.

    Examples
    --------
    >>> grid(np.arange(2.0)).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)


def log_partition(model: ProductOfExperts) -> float:
    """log Z, by a sum over points that lie much nearer to each other than any expert is wide."""
    return float(logsumexp(minus_energies(model, grid(LINE))) + 2 * np.log(LINE[1] - LINE[0]))


def at_the_empty_place(model: ProductOfExperts) -> float:
    """The share of the law in the square around the place without rows."""
    points = grid(LINE)
    near, log_p = np.abs(points - EMPTY).max(axis=1) < 0.5, minus_energies(model, points)
    return float(np.exp(logsumexp(log_p[near]) - logsumexp(log_p)))


def log_law(x: Points) -> Float[np.ndarray, " n"]:
    """log p of the law that the rows are drawn from, in nats.

    Examples
    --------
    >>> bool(abs(log_law(places()[:1])[0] + np.log(24 * 2 * np.pi * SPREAD**2)) < 1e-6)
    True
    """
    centres = places()
    return logsumexp(norm.logpdf(x[:, None], centres, SPREAD).sum(axis=2), axis=1) - np.log(len(centres))


def _clusters(seeds: Sequence[int], experts: int, steps: int, rate: float) -> dict[str, Any]:
    runs = [_of_clusters(seed, experts, steps, rate) for seed in seeds]
    return {"measured": _listed([measured for measured, _ in runs]), "shown": runs[0][1]}


def _of_clusters(seed: int, experts: int, steps: int, rate: float) -> tuple[dict[str, float], dict[str, Any]]:
    rows, held = clusters(ROWS, 2 * seed), clusters(HELD, 2 * seed + 1)
    begin, go = jr.split(jr.key(seed))
    before = untrained(rows, experts, key=begin)
    after = learned(before, rows, steps, rate, key=go)
    mixture, knowing = (_mixture(rows, many, seed) for many in (experts, len(places())))
    long = np.asarray(jnp.abs(jnp.diff(_units(after).gaussian.log_scale, axis=1)))
    log_p = lambda model: float(np.mean(minus_energies(model, held)) - log_partition(model))  # noqa: E731
    measured = {"log p, before learning": log_p(before), PRODUCT: log_p(after), MIXTURE: mixture.score(held)}
    measured |= {"log p, mixture of as many Gaussians as clusters": knowing.score(held), LAW: np.mean(log_law(held))}
    measured |= {"% of the product at the empty place": 100 * at_the_empty_place(after)}
    measured |= {"experts that are strips": float(np.sum(long > np.log(STRIP)))}
    return measured, {"rows": _rounded(rows[:SHOWN]), "experts": _told(after), "mixture": _parts(mixture)}


def _mixture(rows: Points, many: int, seed: int) -> GaussianMixture:
    """Axis-aligned, as the experts are; each Gaussian has as many parameters as an expert, and one is not free."""
    return GaussianMixture(many, covariance_type="diag", n_init=5, max_iter=500, random_state=seed).fit(rows)


def _parts(mixture: GaussianMixture) -> dict[str, Any]:
    parts = {"weight": mixture.weights_, "mean": mixture.means_, "scale": np.sqrt(mixture.covariances_)}
    return {name: _rounded(part) for name, part in parts.items()}


# --- digits


def _digits(seeds: Sequence[int], experts: int, steps: int, rate: float) -> dict[str, Any]:
    data = load_dataset(DIGITS)
    (y, truth), test = cast(tuple[np.ndarray, np.ndarray], data.labels), cast(np.ndarray, data.test)
    read = {name: value for name, value in data.hints.items() if name != "image_shape"}
    fields = {"hidden": experts, "rate": Linear(rate, 0.0, float(steps)), "steps": steps, **read}
    runs = []
    for seed in seeds:
        model = ProductOfExpertsClassifier(**fields, random_state=seed).fit(data.train, y)
        codes = np.searchsorted(model.classes_, truth)
        runs.append(_errors(model.log_scores(test), model.predict_proba(test), codes))
    measured = _listed([measured for measured, _ in runs]) | _others(data.train, y, test, truth)
    return {"measured": measured, "shown": {"rejected": _rounded(np.mean([curve for _, curve in runs], axis=0))}}


def _errors(scores: np.ndarray, shares: np.ndarray, codes: np.ndarray) -> tuple[dict[str, float], list[float]]:
    """What is wrong in per cent, by name, and for every share of rejected rows."""
    curve = [kept_wrong(shares, codes, share) for share in REJECTED]
    told = f"% wrong, the same where the least sure {100 * UNSURE:.0f} % are rejected"
    alone = 100 * np.mean(np.argmax(scores, axis=1) != codes)
    measured = {SCORES: curve[0], told: kept_wrong(shares, codes, UNSURE)}
    return measured | {"% wrong, smallest free energy alone": float(alone)}, curve


def kept_wrong(shares: Float[np.ndarray, "n classes"], codes: np.ndarray, rejected: float) -> float:
    """The error in per cent of the rows that are left when those of the least probable best class are rejected.

    Examples
    --------
    >>> shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    >>> [kept_wrong(shares, np.array([0, 0, 1, 0]), rejected) for rejected in (0.0, 0.25)]
    [25.0, 0.0]
    """
    kept = np.argsort(shares.max(axis=1), kind="stable")[round(rejected * len(codes)) :]
    return float(100 * np.mean(np.argmax(shares[kept], axis=1) != codes[kept]))


def _others(x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
    """The errors of what knows the pixels alone, in per cent; they depend on no seed."""
    top = np.float32(x.max())
    x, test = x.astype(np.float32) / top, test.astype(np.float32) / top
    models = {"% wrong, logistic regression on the pixels": LogisticRegression(C=0.01, max_iter=1000, tol=1e-3)}
    models |= {NEIGHBOUR: KNeighborsClassifier(1, algorithm="brute")}
    return {name: [float(100 * np.mean(model.fit(x, y).predict(test) != truth))] for name, model in models.items()}


# --- in words and pictures


def words(result: Mapping[str, Any]) -> str:
    """A line for each measurement, as Markdown: the mean over the seeds and its range; and how far that goes."""
    measured = result["found"]["measured"]
    lines = [["measured on test rows", "mean", "range"], ["---"] * 3]
    lines += [[what, f"{np.mean(values):.4g}", _range(values)] for what, values in measured.items()]
    told = _clusters_told if result["settings"]["data"] == "clusters" else _digits_told
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{told(measured)}\n"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.4g} to {max(values):.4g}" if len(values) > 1 else ""


def _clusters_told(measured: Mapping[str, Sequence[float]]) -> str:
    product, law, mixture = (np.asarray(measured[what]) for what in (PRODUCT, LAW, MIXTURE))
    short, better = np.mean(law - product), int(np.sum(product > mixture))
    fair = 100 / (len(places()) + 1)
    return (
        f"log p is in nats per row. The product is {short:.3f} below the law of the rows, and above the mixture of as "
        f"many Gaussians in {better} of {len(product)} seeds. A product of lines alone would put {fair:.1f} % at the "
        f"empty place, where no rows are."
    )


def _digits_told(measured: Mapping[str, Sequence[float]]) -> str:
    wrong, other = (float(np.mean(measured[what])) for what in (SCORES, NEIGHBOUR))
    error = (wrong * (100 - wrong) / 10_000) ** 0.5
    which = "better" if wrong < other else "worse"
    return (
        f"Of one seed, 10,000 test rows leave a standard error of {error:.2f} points. The scores are {which} than the "
        f"nearest neighbour by {abs(other - wrong):.2f} points."
    )


def picture(result: Mapping[str, Any]) -> Any:
    """Of clusters: rows, experts and densities; of digits: errors, and those of the rows kept: a matplotlib figure."""
    from matplotlib.figure import Figure

    clustered = result["settings"]["data"] == "clusters"
    figure = Figure(figsize=(11, 4.0), layout="constrained")
    draw = _clusters_drawn if clustered else _digits_drawn
    draw(figure.subplots(1, 3 if clustered else 2), result["found"])
    return figure


def _clusters_drawn(axes: Any, told: Mapping[str, Any]) -> None:
    from matplotlib.patches import Ellipse

    shown, line = told["shown"], np.linspace(-3, 3, 241)
    experts, parts = shown["experts"], shown["mixture"]
    axes[0].plot(*np.asarray(shown["rows"]).T, ".", ms=2, color="tab:gray")
    for at, scale in zip(experts["location"], experts["scale"], strict=True):
        axes[0].add_patch(Ellipse(at, 2 * scale[0], 2 * scale[1], fill=False, ec="tab:red", lw=0.8))
    model, points = _product(experts), grid(line)
    product = np.exp(minus_energies(model, points) - log_partition(model))
    each = norm.pdf(points[:, None], np.asarray(parts["mean"]), np.asarray(parts["scale"])).prod(axis=2)
    titles = ("rows, and experts at one deviation", "product of experts", "mixture of as many Gaussians")
    for axis, density in zip(axes[1:], (product, each @ np.asarray(parts["weight"])), strict=True):
        axis.imshow(density.reshape(len(line), -1).T, origin="lower", extent=(-3, 3, -3, 3), vmin=0, vmax=0.3)
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")


def _digits_drawn(axes: Any, told: Mapping[str, Any]) -> None:
    errors, curve = axes
    names, wrong = zip(*((what, np.mean(values)) for what, values in told["measured"].items()), strict=True)
    for i, value in enumerate(wrong):
        errors.annotate(f"  {value:.2f}", (value, i), va="center")
    errors.plot(wrong, range(len(names)), "o")
    labels = [name.removeprefix("% wrong, ").replace(" where", "\nwhere") for name in names]
    errors.set(yticks=range(len(names)), yticklabels=labels, xscale="log", xlabel="% of test rows wrong")
    errors.invert_yaxis()
    errors.margins(x=0.2)
    curve.plot(100 * np.asarray(REJECTED), told["shown"]["rejected"], "o-")
    curve.set(xlabel="% of test rows rejected, the least sure first", ylabel="% of the others wrong", ylim=(0, None))
