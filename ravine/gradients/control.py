"""Score-function gradients of bits and categoricals whose noise a smooth cost takes out: MuProp, REBAR, RELAX."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine.core import AbstractDiscrete, AbstractDistribution, AbstractGradient, Scalar
from ravine.gradients._classes import Classes, conditioned, logits_of, not_classes, one_hot, value_of, zero
from ravine.nets import MLP, tanh

OneCost = Callable[[Array], Scalar]


class MuProp(AbstractGradient):
    """The cost's tangent at the mean is a control variate. Gu et al. 2016, arXiv:1511.05176, equation 5.

    ``(f(z) - f(m) - f'(m) (z - m)) grad log q(z) + f'(m) grad m`` with m the mean of q: unbiased, two cost evaluations.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> slope = jax.grad(lambda l: MuProp()(jnp.sum, Bernoulli(l), key=jr.key(0)))(jnp.zeros(2))
    >>> slope.tolist()  # exact where the cost is linear
    [0.25, 0.25]
    """

    biased: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True

    def __call__(self, cost: OneCost, d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        z, mean = stop_gradient(d.sample(key=key)), stop_gradient(d.mean())
        value, (middle, slope) = cost(z), jax.value_and_grad(cost)(mean)
        signal = stop_gradient(value - middle - jnp.sum(slope * (z - mean)))
        return value + signal * zero(d.log_prob(z)) + jnp.sum(stop_gradient(slope) * zero(d.mean()))

    def refuses(self, d: AbstractDistribution) -> str | None:
        return None if isinstance(d, AbstractDiscrete) else "it is made for laws with finitely many values"

    def calls(self, d: AbstractDistribution) -> int:
        return 2


class AbstractRelaxedControl(AbstractGradient):
    """A smooth cost h at noisy logits, and at others that give the same class, takes the noise out.

    ``(f(D) - h(z')) grad log q(D) + grad h(z) - grad h(z')`` with z the noisy logits, D their largest, and z' a fresh
    draw of the noisy logits given D. Unbiased for every h; three cost evaluations. What h learns lowers the variance,
    by following the slope of the squared gradient in the logits of the node.
    """

    biased: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True

    @abc.abstractmethod
    def control(self, cost: OneCost, d: AbstractDistribution, noisy: Classes) -> Scalar:
        """h at noisy logits."""

    @abc.abstractmethod
    def knobs(self) -> PyTree[Array]:
        """The learned arrays; None when nothing is learned."""

    @abc.abstractmethod
    def turned(self, knobs: PyTree[Array]) -> Self:
        """With other learned arrays."""

    def __call__(self, cost: OneCost, d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        free, held = jr.split(key)
        logits, knobs = logits_of(d), self.knobs()
        noise = jr.gumbel(free, logits.shape, logits.dtype)
        drawn = stop_gradient(one_hot(jnp.argmax(logits + noise, axis=-1), logits))
        value = cost(value_of(d, drawn))

        def difference(at: Classes, knobs: PyTree[Array]) -> tuple[Scalar, Scalar]:
            h = lambda noisy: self.turned(knobs).control(cost, d, noisy)  # noqa: E731
            again = h(conditioned(at, drawn, key=held))
            return h(at + noise) - again, again

        def squared(knobs: PyTree[Array]) -> tuple[Scalar, Classes]:
            slope, again = jax.grad(difference, has_aux=True)(stop_gradient(logits), knobs)
            score = drawn - jax.nn.softmax(stop_gradient(logits))
            slope = (stop_gradient(value) - again) * score + slope
            return jnp.sum(slope**2), slope

        lesson, slope = jax.grad(squared, has_aux=True)(knobs)
        terms = jax.tree.map(lambda g, k: jnp.sum(stop_gradient(g) * zero(k)), lesson, knobs)
        return value + jnp.sum(stop_gradient(slope) * zero(logits)) + sum(jax.tree.leaves(terms))

    def refuses(self, d: AbstractDistribution) -> str | None:
        return not_classes(d)

    def calls(self, d: AbstractDistribution) -> int:
        return 3


class REBAR(AbstractRelaxedControl):
    """The cost itself at a relaxed draw is the control variate: h(z) = scale * f(softmax(z / temperature)).

    Tucker et al. 2017, arXiv:1703.07370. Both numbers are learned where the estimator is part of what is trained
    (`Learned`), and stay as they are elsewhere.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> float(REBAR()(jnp.max, Bernoulli(jnp.full(2, 50.0)), key=jr.key(0)))
    1.0
    """

    temperature: float | Array = 0.5
    scale: float | Array = 1.0
    moved: Float[Array, " 2"] | None = None

    def knobs(self) -> Float[Array, " 2"] | None:
        return self.moved

    def turned(self, knobs: Float[Array, " 2"] | None) -> Self:
        return dataclasses.replace(self, moved=knobs)

    def control(self, cost: OneCost, d: AbstractDistribution, noisy: Classes) -> Scalar:
        warmer, more = jnp.zeros(2, noisy.dtype) if self.moved is None else self.moved
        soft = jax.nn.softmax(noisy / (self.temperature * jnp.exp(warmer)))
        return (self.scale + more) * cost(value_of(d, soft))

    def learning(self, inputs: int, latents: Sequence[int], *, key: PRNGKeyArray) -> Self:
        return dataclasses.replace(self, moved=jnp.zeros(2))


class RELAX(AbstractRelaxedControl):
    """`REBAR` plus a network: h(z) = scale * f(s) + net(s) with s = softmax(z / temperature).

    Grathwohl et al. 2018, arXiv:1711.00123. The network is made where the estimator becomes part of what is trained
    (`Learned`), for a posterior with one node; before that it is 0.

    Parameters
    ----------
    width : of the two hidden layers of the network.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> learned = RELAX(width=5).learning(4, (2,), key=jr.key(0))
    >>> float(learned(jnp.max, Bernoulli(jnp.full(2, 50.0)), key=jr.key(0)))
    1.0
    """

    rebar: REBAR = REBAR()
    width: int = eqx.field(static=True, default=100)
    net: MLP | None = None

    def knobs(self) -> PyTree[Array]:
        return self.rebar.moved, eqx.filter(self.net, eqx.is_array)

    def turned(self, knobs: PyTree[Array]) -> Self:
        moved, arrays = knobs
        net = eqx.combine(arrays, self.net)
        return dataclasses.replace(self, rebar=self.rebar.turned(moved), net=net)

    def control(self, cost: OneCost, d: AbstractDistribution, noisy: Classes) -> Scalar:
        smooth = self.rebar.control(cost, d, noisy)
        if self.net is None:
            return smooth
        return smooth + self.net(value_of(d, jax.nn.softmax(noisy / self.rebar.temperature)))[0]

    def learning(self, inputs: int, latents: Sequence[int], *, key: PRNGKeyArray) -> Self:
        net = MLP(latents[0], 1, (self.width, self.width), tanh, key=key)
        return dataclasses.replace(self, rebar=self.rebar.learning(inputs, latents, key=key), net=net)

    def refuses(self, d: AbstractDistribution) -> str | None:
        size = None if self.net is None else self.net.layers[0].weight.shape[1]
        if not_classes(d) is None and size is not None and d.mean().size != size:
            return f"its network is made for {size} numbers, and the node has {d.mean().size}"
        return not_classes(d)
