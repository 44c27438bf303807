"""Equinox blocks the field repeats; each maps one input to one vector of numbers."""

from ravine.nets.activations import elu as elu
from ravine.nets.activations import gelu as gelu
from ravine.nets.activations import identity as identity
from ravine.nets.activations import relu as relu
from ravine.nets.activations import sigmoid as sigmoid
from ravine.nets.activations import silu as silu
from ravine.nets.activations import softplus as softplus
from ravine.nets.activations import tanh as tanh
from ravine.nets.conv import ConvDecoder as ConvDecoder
from ravine.nets.conv import ConvEncoder as ConvEncoder
from ravine.nets.linear import LinearPredictor as LinearPredictor
from ravine.nets.mlp import MLP as MLP
from ravine.nets.mlp import ResBlock as ResBlock
from ravine.nets.mlp import ResMLP as ResMLP
from ravine.nets.mlp import mirrored as mirrored
from ravine.nets.perceptron import Perceptron as Perceptron
from ravine.nets.perceptron import perceptrons as perceptrons
from ravine.nets.perceptron import potentials as potentials
from ravine.nets.pictures import ConvReader as ConvReader
from ravine.nets.pictures import ConvWriter as ConvWriter
from ravine.nets.pictures import reader as reader
from ravine.nets.pictures import writer as writer
from ravine.nets.signed import Links as Links
from ravine.nets.signed import Signed as Signed
from ravine.nets.signed import centred as centred
from ravine.nets.signed import linked as linked
