"""Names and text: what is spelled reads back equal, what is hostile is refused in one line and runs nothing."""

import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ravine
from ravine import checkpoint, nets, registry
from ravine._spell import ACTIVATIONS, kebab, spell
from ravine._tree import Cosine, Decay, Layer, Linear, Part, Power, Staircase, Whole
from ravine.dist import Classes, HeavyTailed, Levels, Real
from ravine.evidence import Exact, ImportanceWeighted
from ravine.gradients import Enumerate, Pathwise, ScoreFunction
from ravine.models.families import Full, Given, Spherical, Spread
from ravine.nets import activations
from ravine.objectives import ELBO, IWAE, AnalyticELBO
from ravine.registry import catalogue, names, parse
from ravine.reproduce import unfitted
from ravine.rules import Descend, Optimiser

# a value of every kind that can be written, and how it is written
SPELLED = {
    "None": None, "True": True, "False": False, "0": 0, "-3": -3, "18446744073709551615": 2**64 - 1,
    "0.1": 0.1, "-1e-300": -1e-300, "inf": math.inf, "-inf": -math.inf, "3e-05": 3e-5, "-0.0": -0.0,
    "'a'": "a", "''": "", '"it\'s"': "it's", r"'a\nb\x00\ud800'": "a\nb\0\ud800", "'größe ☃ ('": "größe ☃ (",
    r"'\\'": "\\", "'\\'\"'": "'\"", "()": (), "(200,)": (200,), "(200, 100)": (200, 100), "[1, [2.0]]": [1, [2.0]],
    "[]": [], "{}": {}, "{'a': 1, 2: (None,)}": {"a": 1, 2: (None,)},
    "tanh": nets.tanh, "gelu": nets.gelu, "adam": optax.adam, "sgd": optax.sgd,
    "Enumerate()": Enumerate(), "Pathwise()": Pathwise(), "Pathwise(k=4)": Pathwise(4),
    "ScoreFunction(k=8)": ScoreFunction(8), "Decay(rate=3e-05, floor=0.5)": Decay(3e-5, floor=0.5),
    "Linear(start=0.0, stop=1.0, steps=100.0)": Linear(0.0, 1.0, 100.0), "Power(exponent=-0.6)": Power(-0.6),
    "Cosine(start=0.1, steps=10.0)": Cosine(0.1, 10.0), "Whole()": Whole(), "Part(path='p.net')": Part("p.net"),
    "Staircase(start=0.1, factor=0.5, unit=9.0)": Staircase(0.1, 0.5, 9.0), "Layer(index=2)": Layer(2),
    "Real(floor=0.1)": Real(0.1), "Levels(count=5)": Levels(5), "HeavyTailed()": HeavyTailed(), "Classes()": Classes(),
    "Exact()": Exact(), "ImportanceWeighted()": ImportanceWeighted(1000),
    "ImportanceWeighted(k=5)": ImportanceWeighted(5),
    "Full(reg_covar=0.1)": Full(0.1), "Spherical()": Spherical(), "Spread()": Spread(),
    "Given(weights=(1.0,), means=((0.1, -2.0),), covariances=((1.0, 2.0),))":
        Given((1.0,), ((0.1, -2.0),), ((1.0, 2.0),)),
    "IWAE(k=5, gradient=Pathwise())": IWAE(5, Pathwise()),
    "ELBO(gradient=ScoreFunction(k=4), beta=Linear(start=0.0, stop=1.0, steps=9.0))":
        ELBO(ScoreFunction(4), Linear(0.0, 1.0, 9.0)),
    "AnalyticELBO(gradient=Pathwise(), free_bits=0.5)": AnalyticELBO(Pathwise(), free_bits=0.5),
    "Optimiser()": Optimiser(),
    "Optimiser(make=adamw, args=(Decay(rate=0.1), 0.9), clip=1.0)": Optimiser(optax.adamw, (Decay(0.1), 0.9), 1.0),
    "(Descend(objective=ELBO(gradient=Enumerate()), on=Part(path='q')), {'x': [Pathwise()]})":
        (Descend(ELBO(Enumerate()), on=Part("q")), {"x": [Pathwise()]}),
}  # fmt: skip


def assert_refused(action, *words):
    """ValueError, one printable line that holds these words."""
    with pytest.raises(ValueError) as caught:
        action()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 700, message
    for word in words:
        assert word in message


# --- text and values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SPELLED)
def test_spelled_and_read_back(text):
    value = SPELLED[text]
    assert spell(value) == text
    for read in (parse(text), parse(spell(value, defaults=True)), parse(f"  {text}\n")):
        assert read == value and type(read) is type(value)
        assert spell(read, defaults=True) == spell(value, defaults=True)  # tells -0.0 from 0.0 and True from 1


@pytest.mark.parametrize("name", registry.parts())
def test_every_part_has_a_signature_and_its_default_instance_reads_back(name):
    assert registry.signature(name).startswith(f"{name}(")
    cls = registry.parts()[name]
    needed = [f for f in dataclasses.fields(cls) if isinstance(cls, type)] if dataclasses.is_dataclass(cls) else []
    if isinstance(cls, type) and all(f.default is not dataclasses.MISSING for f in needed):
        assert parse(spell(cls())) == cls() == parse(spell(cls(), defaults=True))


def test_defaults_are_written_when_asked():
    assert spell(ImportanceWeighted(), defaults=True) == "ImportanceWeighted(k=1000, block=128)"
    assert spell([ELBO(Pathwise())], defaults=True) == "[ELBO(gradient=Pathwise(k=1), beta=1.0)]"


@pytest.mark.parametrize(
    "value, text",
    [
        (np.float64(0.5), "0.5"),
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.bool_(True), "True"),
        (np.str_("a"), "'a'"),
    ]
    + [(jnp.asarray(2.0), "2.0"), (np.array(3), "3"), (jnp.tanh, "tanh"), (jax.nn.gelu, "gelu"), (jax.nn.relu, "relu")],
)
def test_numbers_of_arrays_and_functions_of_jax_are_written_as_ours(value, text):
    assert spell(value) == text
    parse(text)


def unwritable():
    deep: list = []
    deep.append(deep)

    def tanh(x):
        return x

    def gelu(x):
        return x

    gelu.__module__ = "jax.nn"
    return [
        lambda x: x, tanh, gelu, print, np.ones(3), jnp.ones((1, 1)), Pathwise, object(), {1, 2}, b"x", 1j, np.random,
        deep, np.random.default_rng(0), np.random.RandomState(0), [Optimiser(len)], jnp.sin, np.tanh, np.float64, ...,
        10**30, np.array(object(), object),
    ]  # fmt: skip


@pytest.mark.parametrize("i", range(len(unwritable())))
def test_what_has_no_text_is_refused(i):
    assert_refused(lambda: spell(unwritable()[i]))


def test_positions_and_names_of_arguments():
    assert parse("Decay(3e-5, floor=0.5)") == parse("Decay(floor=0.5, rate=3e-5)") == Decay(3e-5, 0.5)
    assert parse("ELBO(ScoreFunction(4), Linear(0, 1, 10))") == ELBO(ScoreFunction(4), Linear(0.0, 1.0, 10.0))
    assert type(parse("Linear(0, 1, 10)").steps) is float
    assert parse("(0x10, 1_000, +5, .5, 1e3, 'a' 'b', r'\\d')") == (16, 1000, 5, 0.5, 1000.0, "ab", "\\d")


@pytest.mark.parametrize("hint", [str, str | None, None | str, float | str, "Literal"])
def test_a_bare_word_is_text_where_text_is_expected(hint):
    from typing import Literal

    hint = Literal["static", "none"] if hint == "Literal" else hint
    assert parse("static", expects=hint) == "static"
    assert parse("tanh", expects=hint) == "tanh"
    assert parse("'static'", expects=hint) == "static"
    assert parse("None", expects=hint) is None
    assert_refused(lambda: parse("Pathwise", expects=hint), "Pathwise(k=1)")
    assert_refused(lambda: parse("static"), "quotes")
    assert_refused(lambda: parse("static", expects=int | None), "quotes")


WRONG = {
    "Pathwize()": ("Pathwise",),
    "pathwise()": ("Pathwise",),
    "Pathwise": ("Pathwise(k=1)", "its name alone"),
    "Pathwise(1, 2)": ("Pathwise(k=1)", "too many"),
    "Pathwise(n=3)": ("Pathwise(k=1)", "'n'"),
    "Pathwise(k=1, k=2)": ("Call",),
    "Pathwise(k='x')": ("k='x'", "int is needed", "Pathwise(k=1)"),
    "Pathwise(k=1.5)": ("int is needed",),
    "Levels()": ("Levels(count)", "missing"),
    "Levels(1)": ("Levels(count)", "at least 2"),
    "ELBO(0.5)": ("ELBO(gradient=None, beta=1.0)", "AbstractGradient"),
    "ELBO(Pathwise(), beta='high')": ("AbstractSchedule",),
    "AnalyticELBO(Decay(1.0))": ("AbstractGradient",),
    "Optimiser(make=3)": ("Optimiser(make=adam, args=(0.001,))",),
    "tanhh": ("tanh",),
    "tanh(1)": ("part", "'tanh'"),
    "true": ("True",),
    "none": ("None",),
    "(1, 2": ("parse",),
    "": ("parse",),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_answered_with_what_would_be_right(text):
    if text.startswith("Optimiser"):
        assert_refused(lambda: parse(text), "Optimiser(make=adam, args=(0.001,)")
    else:
        assert_refused(lambda: parse(text), *WRONG[text])


HOSTILE = {
    "import": "__import__('os').system('touch {flag}')",
    "open": "open('{flag}', 'w')",
    "exec": "exec(\"open('{flag}', 'w')\")",
    "eval": "eval(\"open('{flag}', 'w')\")",
    "part then attribute": "Pathwise().__class__.__init__.__globals__['open']('{flag}', 'w')",
    "attribute": "jax.numpy.tanh",
    "attribute of a part": "Pathwise.biased",
    "call of an attribute": "optax.adam(1)",
    "call of a call": "Pathwise()()",
    "call of a function": "adam(0.1)",
    "lambda": "(lambda: open('{flag}', 'w'))()",
    "list comprehension": "[open('{flag}', 'w') for i in (1,)]",
    "generator": "tuple(open('{flag}', 'w') for i in (1,))",
    "dict comprehension": "{{open('{flag}', 'w'): 1 for i in (1,)}}",
    "set": "{{1, 2}}",
    "unpacking": "[*(1, 2)]",
    "argument unpacking": "Pathwise(*(1,))",
    "keyword unpacking": "Pathwise(**{{'k': 1}})",
    "dict unpacking": "{{**{{'k': 1}}}}",
    "f-string": 'f\'{{open("{flag}", "w")}}\'',
    "f-string in a part": "Part(f'{{1}}')",
    "bytes": "b'x'",
    "bytes in a part": "Part(path=b'p')",
    "complex": "1j",
    "ellipsis": "...",
    "dots": "(...,)",
    "walrus": "(x := 1)",
    "arithmetic": "1 + 1",
    "power bomb": "9**9**9**9",
    "repetition bomb": "'x' * 10**10",
    "division": "1 / 0",
    "comparison": "1 < 2",
    "boolean": "True or open('{flag}', 'w')",
    "conditional": "1 if True else 2",
    "not": "not True",
    "invert": "~1",
    "minus text": "-'a'",
    "minus truth": "-True",
    "minus a part": "-Pathwise()",
    "subscript": "(1, 2)[0]",
    "slice": "'abc'[0:2]",
    "await": "await x",
    "yield": "(yield 1)",
    "statement": "import os",
    "two statements": "1; import os",
    "assignment": "x = 1",
    "lines": "1\nimport os",
    "comment": "1 # comment",
    "encoding": "# coding: rot13\n1",
    "backslash": "1 \\\n",
    "backticks": "`ls`",
    "shell": "$(touch {flag})",
    "dunder": "__builtins__",
    "dunder call": "__build_class__()",
    "module": "ravine.registry.load('.')",
    "base class": "AbstractGradient()",
    "interface": "AbstractSchedule()",
    "law": "Gaussian(0.0, 1.0)",
    "model": "Directed(1, 2)",
    "private": "_Entry('F32', (), 0, 0)",
    "type": "type('X', (), {{}})",
    "parentheses": "(" * 5000,
    "closed parentheses": "(" * 40 + "1" + ",)" * 40,
    "closed brackets": "[" * 40 + "]" * 40,
    "dicts": "{{1:" * 90 + "1" + "}}" * 90,
    "nested parts": "ELBO(" * 60 + ")" * 60,
    "minuses": "-" * 50_000 + "1",
    "few minuses": "-" * 50 + "1",
    "long name": "x" * 90_000,
    "long call": "Pathwise(" + "1," * 40_000 + ")",
    "long number": "9" * 5_000,
    "long attribute": "a." * 40_000 + "a",
    "ten megabytes": "1," * 5_000_000,
    "ten megabytes of text": "'" + "x" * 10_000_000 + "'",
    "unclosed": "'abc",
    "unclosed triple": "'''abc",
    "null": "1\0",
    "null in text": "'\0'",
    "mathematical letters": "𝐏athwise()",
    "full-width letters": "Ｐathwise()",
    "mathematical keyword": "Pathwise(𝐤=1)",
    "full-width digits": "１２",
    "arabic digits": "١",
    "long s": "Paſhwise()",
    "zero-width": "Path\u200bwise()",
    "right to left": "\u202ePathwise()",
    "no-break space": "Pathwise(\u00a0)",
    "line separator": "1\u2028+1",
    "form feed": "\x0c1;2",
    "surrogate": "\ud800",
    "duplicate keys": "{{1: 1, 1: 2}}",
    "unhashable key": "{{[1]: 2}}",
    "part as key": "{{Pathwise(): 2}}",
    "nan as key": "{{nan: 1, (): 2}}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_and_runs_nothing(name, tmp_path, capfd):
    flag = tmp_path / "ran"
    text = HOSTILE[name].replace("{flag}", str(flag)).replace("{{", "{").replace("}}", "}")
    started = time.process_time()  # a guard against text that takes for ever, on however busy a machine
    assert_refused(lambda: parse(text))
    assert time.process_time() - started < 20
    assert not flag.exists() and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [None, 3, b"1", ["1"], Path("x")])
def test_what_is_no_text_is_refused(value):
    assert_refused(lambda: parse.__wrapped__(value) if hasattr(parse, "__wrapped__") else parse(value), "text")


# --- names ---------------------------------------------------------------------------------------------------------


def test_parts_are_what_the_packages_export():
    found = registry.parts()
    assert {"Pathwise", "ELBO", "Decay", "Optimiser", "Exact", "Bits", "Real", "tanh", "adam"} <= set(found)
    assert not {"Gaussian", "OneNode", "Row", "ArraySource", "VAE", "MLP", "BestState"} & set(found)
    assert all(not name.startswith(("_", "Abstract")) for name in found)


def test_no_part_hides_another():
    """Two modules may not export different parts under one name."""
    import importlib

    homes: dict = {}
    for module in {module for module, _ in names.PARTS}:
        for name, cls in names._public_classes(importlib.import_module(module)):
            assert homes.setdefault(name, cls) is cls
    assert not set(homes) & set(names.FUNCTIONS)


def test_every_activation_has_a_name():
    public = {
        name for name, value in vars(activations).items() if getattr(value, "__module__", "") == activations.__name__
    }
    assert public == set(ACTIVATIONS)


def test_recipes_are_named_after_their_classes():
    assert all(kebab(attribute) == name for name, (_, attribute) in registry.recipes().items())


@pytest.mark.parametrize("name", registry.recipes())
def test_every_recipe_can_be_named_described_and_made(name):
    made = registry.made(name, {"random_state": "3"})
    assert made.random_state == 3 and type(made) is registry.recipe(name)
    words = registry.describe(name)
    assert registry.headline(name) in words and "random_state = None" in words
    for field, value in made.get_params(deep=False).items():
        assert parse(spell(value)) == value and parse(spell(value, defaults=True)) == value, field
        assert field in words


def test_an_unknown_recipe_lists_the_closest():
    assert_refused(lambda: registry.recipe("gausian-mixture"), "gaussian-mixture")
    assert_refused(lambda: registry.recipe("VEA"), "vae")
    for name in ("os.system", "ravine.recipes.vae", "x\ny" * 999, "../x", ""):
        assert_refused(lambda name=name: registry.recipe(name), "recipe")


def test_settings_are_read_by_the_types_of_the_fields():
    vae = registry.made(
        "vae", {"latents": "3", "kind": "binary", "rate": "Decay(0.1)", "hidden": "(8,)"}, random_state=7
    )
    assert (vae.latents, vae.kind, vae.rate, vae.hidden, vae.random_state) == (3, "binary", Decay(0.1), (8,), 7)
    assert registry.made("vae", {"random_state": "8", "levels": 4}, random_state=7).get_params()["random_state"] == 8
    for setting, words in {
        ("latent", "3"): ("latents",),
        ("latents", "three"): ("vae, latents",),
        ("latents", "'three'"): ("int", "'three'"),
        ("latents", "1.5"): ("int", "1.5"),
        ("rate", "fast"): ("vae, rate",),
        ("objective", "3"): ("objective",),
        ("hidden", "('a',)"): ("tuple[int, ...]",),
        ("precision", "float16"): ("float32",),
        ("__class__", "3"): ("field",),
        ("evidence", "Pathwise()"): ("AbstractEvidence",),
    }.items():
        assert_refused(lambda setting=setting: registry.made("vae", dict([setting])), *words)


def test_only_what_a_recipe_has_fields_for_is_taken_from_the_data():
    hints = {"kind": "levels", "levels": 256, "names": ("a",), "image_shape": (28, 28)}
    assert registry.reading("vae", hints) == {"kind": "levels", "levels": 256}


def test_listing_imports_no_jax():
    code = "import sys, ravine.registry as r\n[r.headline(n) for n in r.recipes()]\n"
    code += "print(sorted({'jax', 'sklearn', 'optax', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(ravine.__file__).parents[1]
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- loading -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Fake:
    """A recipe that remembers what it was restored from."""

    steps: int = 3
    rate: object = 1.0

    @classmethod
    def _restore(cls, record, fields, folder):
        made = cls(**fields)
        made.restored = checkpoint.load_run(folder, {"w": np.zeros(record["schema"]["width"])})
        return made


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "RECIPES", {**catalogue.RECIPES, "fake": (__name__, "Fake")})
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Fake.__module__])

    def save(**changes):
        record = {
            "ravine": "0.1.0",
            "recipe": "fake",
            "fields": {"steps": "5", "rate": "Decay(0.1)"},
            "schema": {"width": 2},
        }
        checkpoint.save_run(tmp_path, {"w": np.ones(2)}, record | changes)
        return tmp_path

    return save


def test_loading_reads_the_fields_and_hands_over(saved):
    loaded = registry.load(saved())
    assert (loaded.steps, loaded.rate) == (5, Decay(0.1)) and loaded.restored["w"].tolist() == [1, 1]
    assert ravine.load is registry.load


RECORDS = {
    "other recipe": ({"recipe": "vea"}, ("vae", "recipe.json")),
    "module": ({"recipe": "os:system"}, ("recipe",)),
    "class": ({"recipe": "Fake"}, ("fake",)),
    "unknown field": ({"fields": {"step": "5"}}, ("steps", "recipe.json")),
    "hostile field": ({"fields": {"steps": "__import__('os').getcwd()"}}, ("recipe.json",)),
    "unknown part": ({"fields": {"rate": "MyDecay(0.1)"}}, ("Decay", "recipe.json")),
    "no width": ({"schema": {}}, ("recipe.json", "width")),
    "other width": ({"schema": {"width": 3}}, ("'w'", "float64 (3,)")),
    "odd width": ({"schema": {"width": "x"}}, ("recipe.json",)),
    "huge width": ({"schema": {"width": 2**60}}, ("recipe.json",)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_cannot_be_restored_is_refused(name, saved):
    changes, words = RECORDS[name]
    assert_refused(lambda: registry.load(saved(**changes)), *words)


def test_what_is_no_run_is_refused(tmp_path):
    assert_refused(lambda: registry.load(tmp_path / "nothing"), "recipe.json")
    assert_refused(lambda: registry.load(tmp_path), "recipe.json")


MEASURED = sorted(Path(registry.__file__).parents[1].glob("recipes/results/*.json"))


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_a_result_is_that_of_the_trial_it_names(path):
    """A trial that was changed, or whose name another took, leaves no number of its own behind."""
    result = json.loads(path.read_text())
    trial = registry.recipe(result["recipe"]).trials[result["scale"]]
    assert path.stem.replace("_", "-") == f"{result['recipe']}-{result['scale']}"
    reported = result["reported"]
    theirs = ("accuracy", trial.accuracy) if "accuracy" in reported else ("log_likelihood", trial.reported)
    assert (result["data"], reported[theirs[0]]) == (trial.data, theirs[1])
    fields = {field: spell(value) for field, value in trial.fields.items()}
    assert result.get("fields", fields) == fields  # earlier results do not say


@pytest.mark.parametrize("name", registry.recipes())
def test_every_trial_is_a_recipe_with_its_fields(name):
    for trial in registry.recipe(name).trials.values():
        made = unfitted(name, trial, {}, seed=3)
        assert made.random_state == 3 and all(getattr(made, field) == value for field, value in trial.fields.items())
