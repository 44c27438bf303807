"""Estimators of E_{z~d}[cost(z)] and its gradient: each declares whether it is biased and what it needs."""

from ravine.gradients.antithetic import ARM, DisARM
from ravine.gradients.baselines import NVIL
from ravine.gradients.control import REBAR, RELAX, MuProp
from ravine.gradients.enumeration import Enumerate, LocalExpectation, PartialEnumerate
from ravine.gradients.implicit_mle import AIMLE, IMLE
from ravine.gradients.many import VIMCO
from ravine.gradients.measure import MeasureValued
from ravine.gradients.pathwise import Pathwise
from ravine.gradients.perturbed import ExactNoise, GumbelNoise, SumOfGamma
from ravine.gradients.score import RLOO, ScoreFunction
from ravine.gradients.straight_through import (
    DARN,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    ReinMax,
    StraightThrough,
    StraightThroughGumbel,
)
from ravine.gradients.subsets import SIMPLE, ConcreteSubset

__all__ = [
    "AIMLE",
    "ARM",
    "DARN",
    "IMLE",
    "NVIL",
    "REBAR",
    "RELAX",
    "RLOO",
    "SIMPLE",
    "VIMCO",
    "ConcreteSubset",
    "DisARM",
    "Enumerate",
    "ExactNoise",
    "GappedStraightThrough",
    "GumbelNoise",
    "GumbelRao",
    "GumbelSoftmax",
    "LocalExpectation",
    "MeasureValued",
    "MuProp",
    "PartialEnumerate",
    "Pathwise",
    "ReinMax",
    "ScoreFunction",
    "StraightThrough",
    "StraightThroughGumbel",
    "SumOfGamma",
]
