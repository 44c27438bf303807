"""Markov kernels: Gibbs by blocks, Langevin, Hamiltonian, parallel tempering. Each leaves a law as it is."""

from ravine.kernels.gibbs import Gibbs
from ravine.kernels.gradient import HMC, Langevin, Metropolis
from ravine.kernels.tempering import Tempering

__all__ = ["HMC", "Gibbs", "Langevin", "Metropolis", "Tempering"]
