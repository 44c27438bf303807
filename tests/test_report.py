"""The report: one file that asks nothing of the network, says what it must, and shows every name as it is."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest

import ravine as rv
from ravine.cli import main
from ravine.evidence import ImportanceWeighted
from ravine.models.families import Diagonal
from ravine.report import Origin, charts, look, markup, png, tables
from ravine.report.again import chosen, python_lines, shell_lines
from ravine.report.latent import ODD

HOSTILE = "<script>alert('x')</script>"
ATTRIBUTE = '" onload="alert(1)'
EVIDENCE = ImportanceWeighted(5)
NET = {"hidden": (4,), "steps": 20, "evidence": EVIDENCE, "particles": 5, "random_state": 0}
VOID = {"img", "meta", "link", "br"}
TABLE = {"quality", "curve", "marginals", "pairs", "imputation", "missing", "map", "odd", "again"}
IMAGES = {"quality", "curve", "samples", "reconstructions", "inpainting", "map", "odd", "again"}


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.open, self.elements, self.words, self.unbalanced = text, [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def prose(self) -> str:
        return " ".join(" ".join(self.words).split())


def table(rows: int = 60, holes: bool = True) -> pandas.DataFrame:
    stream = np.random.default_rng(0)
    X = stream.normal(size=(rows, 1)) + 0.5 * stream.normal(size=(rows, 3))
    if holes:
        X[stream.random(X.shape) < 0.2] = np.nan
    return pandas.DataFrame(X, columns=[HOSTILE, ATTRIBUTE, "size & weight"])


def images(rows: int = 40) -> np.ndarray:
    stream = np.random.default_rng(0)
    inner = stream.random((rows, 2, 2)) < 0.6
    return np.pad(inner, ((0, 0), (1, 1), (1, 1))).astype(float)


FINDINGS = [
    SimpleNamespace(name=HOSTILE, level="note", words="Half of <the> latents."),
    SimpleNamespace(name="gap", level="warning", words="Large."),
]


@pytest.fixture(scope="module")
def factors():
    return rv.FactorAnalysis(latents=2, iterations=30, random_state=0).fit(table())


@pytest.fixture(scope="module")
def mixture():
    return rv.GaussianMixture(covariance=Diagonal(), iterations=5, random_state=3).fit(table())


@pytest.fixture(scope="module")
def pages(tmp_path_factory, factors, mixture):
    folder = tmp_path_factory.mktemp("reports")
    X, pictures = table(), images()
    plain, drawing = rv.FactorAnalysis(latents=2, iterations=30), rv.VAE(latents=2, kind="binary", **NET)
    fits = {
        "factors": (factors, X, {"findings": FINDINGS}),
        "mixture": (mixture, X, {"labels": [HOSTILE] * 30 + ["b"] * 30}),
        "array": (plain.fit(X.to_numpy()), X.to_numpy(), {"labels": np.linspace(0, 1, 60), "unseen": True}),
        "images": (drawing.fit(pictures), pictures, {"title": HOSTILE, "unseen": False}),
    }
    made = {}
    for name, (factors, rows, options) in fits.items():
        path = rv.report(factors, rows, folder / f"{name}.html", **options)
        made[name] = Page(path.read_text(encoding="utf-8"))
    return made


every_kind = pytest.mark.parametrize("kind", ["factors", "mixture", "array", "images"])


# --- every page


@every_kind
def test_nothing_is_asked_of_the_network(pages, kind):
    page = pages[kind]
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not {name for name in attributes if name.startswith("on")}
    assert not re.search(r"https?:|//\w+\.|@import|url\(", page.text)
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "unsafe-inline'; script" in policy
    assert len(page.named("script")) == 2  # the map's data, and the one script that the policy names


@every_kind
def test_a_page_is_well_made(pages, kind):
    page = pages[kind]
    assert page.unbalanced == [] and page.open == []
    assert len(page.ids()) == len(set(page.ids()))
    assert len(page.named("h1")) == len(page.named("main")) == len(page.named("nav")) == 1
    assert page.named("html")[0]["lang"] == "en"
    links = {attributes["href"][1:] for attributes in page.named("a")}
    assert links == {attributes["aria-labelledby"] for attributes in page.named("section")} <= set(page.ids())
    assert len(page.text) < 300_000


@every_kind
def test_pictures_have_names_and_tables_behind_them(pages, kind):
    page = pages[kind]
    assert all(attributes["alt"] for attributes in page.named("img"))
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in page.named("svg"))
    assert all(attributes["aria-label"] and attributes["tabindex"] == "0" for attributes in page.named("canvas"))
    assert len(page.named("details")) >= 4 and len(page.named("table")) >= 4
    assert len(page.named("caption")) == len(page.named("table"))


@every_kind
def test_names_of_the_user_stay_text(pages, kind):
    page = pages[kind]
    assert "<script>alert" not in page.text
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    if kind in ("factors", "mixture"):
        assert HOSTILE in page.prose() and ATTRIBUTE in page.prose()


@every_kind
def test_no_number_is_missing_from_a_drawing(pages, kind):
    for attributes in pages[kind].named("path"):
        assert "nan" not in attributes["d"] and "inf" not in attributes["d"]
    for _, attributes in pages[kind].elements:
        assert "nan" not in attributes.get("style", "")


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("factors", TABLE | {"findings"}),
        ("mixture", TABLE | {"classes"}),
        ("array", TABLE),
        ("images", IMAGES | {"traversals"}),
    ],
)
def test_sections(pages, kind, places):
    assert {attributes["aria-labelledby"] for attributes in pages[kind].named("section")} == places


@pytest.mark.slow
def test_pixels_that_are_given_are_not_hidden(tmp_path):
    pictures = images()
    model = rv.StructuredPrediction(given=tuple(range(8, 16)), layers=(2,), kind="binary", steps=5, random_state=0)
    page = Page(rv.report(model.fit(pictures), pictures, tmp_path / "page.html").read_text(encoding="utf-8"))
    prose = page.prose()
    assert "Everything but the given pixels of each image is hidden" in prose and "nan" not in prose.split()
    assert {attributes["aria-labelledby"] for attributes in page.named("section")} >= {"samples", "inpainting"}
    hidden = next(attributes for attributes in page.named("img") if "everything but the given" in attributes["alt"])
    assert hidden["src"].startswith("data:")


def test_where_nothing_was_there_to_hide_no_error_is_said(tmp_path):
    pictures = images()
    model = rv.VAE(latents=2, kind="binary", **NET).fit(pictures)
    pictures[:, 2:] = np.nan
    prose = Page(rv.report(model, pictures, tmp_path / "page.html").read_text(encoding="utf-8")).prose()
    assert "The lower half of each image is hidden" in prose and "typical error of a hidden pixel" not in prose


# --- what it says


def test_the_likelihood_is_said_with_everything_that_belongs_to_it(pages, factors):
    got, prose = factors.evaluate(table()), pages["factors"].prose()
    value = f"{markup.number(got.log_likelihood)} ± {markup.number(got.standard_error, 2)} nats per row"
    assert f"the mean log-likelihood is {value}" in prose
    assert "exact by closed-form" in prose and got.treated in prose
    assert "only if the fit has not seen these" in prose


def test_a_bound_is_called_one_and_unseen_rows_are(pages):
    assert "60 rows that the fit has not seen" in pages["array"].prose()
    assert "a lower bound by importance-5" in pages["images"].prose()
    assert "flatters" in pages["images"].prose() and "flatters" not in pages["array"].prose()


def test_findings_are_said_the_most_urgent_first(pages):
    prose = pages["factors"].prose()
    assert prose.index("Large.") < prose.index("Half of <the> latents.")
    badges = [a["class"] for a in pages["factors"].named("span") if "badge" in (a.get("class") or "")]
    assert badges == ["badge warning", "badge note"]


def test_the_odd_rows_are_those_of_lowest_likelihood(pages, factors):
    lowest = np.argsort(factors.score_samples(table()))[:ODD]
    found = re.search(r'aria-label="Table: Odd rows".*?</table>', pages["factors"].text, re.DOTALL)
    assert re.findall(r'<th scope="row">(\d+)</th>', found.group()) == [str(row) for row in lowest]


def test_the_map_holds_the_components_of_the_latents(pages, factors):
    latents = factors.transform(table())
    centred = latents - latents.mean(axis=0)
    first = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    data = map_data(pages["factors"])
    assert abs(np.corrcoef(first, data["x"])[0, 1]) > 0.999999
    assert data["names"] is None and data["row"] == list(range(60))
    np.testing.assert_allclose(data["p"], factors.score_samples(table()), atol=0.006)


def test_the_map_of_classes_and_labels(pages):
    assert map_data(pages["mixture"])["names"] == [HOSTILE, "b"]
    assert map_data(pages["array"])["names"] is None  # labels are a quantity
    assert map_data(pages["images"])["kept"] == 40


def map_data(page: Page) -> dict:
    return json.loads(re.search(r'id="map-data">(.*?)</script>', page.text, re.DOTALL).group(1))


def test_an_absent_history_is_said(factors, tmp_path):
    model = copy.copy(factors)
    model.history_ = []
    assert "there is no learning curve" in Page(rv.report(model, table(), tmp_path / "r.html").read_text()).prose()


def test_complete_tables_have_no_section_on_holes(factors, tmp_path):
    X = table(holes=False)
    ids = Page(rv.report(factors, X, tmp_path / "r.html").read_text()).ids()
    assert "missing" not in ids and "imputation" in ids


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_make_a_report(factors, tmp_path, rows):
    X = table().iloc[:rows]
    page = Page(rv.report(factors, X, tmp_path / "r.html").read_text())
    assert page.unbalanced == [] and "nan" not in page.prose()


def test_odd_columns_make_a_report(factors, tmp_path):
    X = table(30)
    X.iloc[:, 0], X.iloc[:, 1], X.iloc[3] = 1e9, np.nan, np.nan
    page = Page(rv.report(factors, X, tmp_path / "r.html").read_text())
    assert page.unbalanced == [] and "1 column left out" in page.prose()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [rv.VAE(latents=1, **NET), rv.VariationalFactorAnalysis(steps=20, random_state=0)])
def test_recipes_with_networks_report_on_tables(recipe, tmp_path):
    page = Page(rv.report(recipe.fit(table()), table(), tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.unbalanced == [] and {a["aria-labelledby"] for a in page.named("section")} == TABLE


@pytest.mark.slow
def test_columns_of_every_kind_make_a_report(tmp_path):
    stream = np.random.default_rng(0)
    X = table(80).assign(
        level=pandas.Categorical(stream.choice(["a<b", "b&c"], 80), categories=["b&c", "a<b", "never"]),
        day=pandas.to_datetime("2020-01-01") + pandas.to_timedelta(stream.integers(0, 900, 80), "D"),
        flag=stream.random(80) < 0.3,
        visits=stream.poisson(3, 80),
        name=[f"id{i}" for i in range(80)],
    )
    X.loc[::7, ["level", "day"]] = None
    page = Page(rv.report(rv.VAE(latents=1, **NET).fit(X), X, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.unbalanced == [] and {"level", "day", "flag", "visits"} <= set(page.words)
    assert "a<b" in page.prose() and "1 column left out" in page.prose()


# --- mistakes


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (0, {}, "the rows of the report: expected at least one"),
        (5, {"labels": [1, 2]}, "labels: expected 5"),
        (5, {"findings": [SimpleNamespace(name="a", level="bad", words="")]}, "expected one of 'good'"),
    ],
)
def test_mistakes_are_one_line(factors, tmp_path, rows, options, words):
    with pytest.raises(ValueError, match=words):
        rv.report(factors, table().iloc[:rows], tmp_path / "r.html", **options)
    assert not (tmp_path / "r.html").exists()


def test_an_unfitted_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        rv.report(rv.FactorAnalysis(), table(), tmp_path / "r.html")


# --- how to do it again


def test_the_python_lines_fit_the_same_model(mixture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table().to_csv("rows.csv", index=False)
    changed, unwritten = chosen(mixture)
    scope: dict = {}
    exec("\n".join(python_lines(mixture, changed, Origin())), scope)
    assert unwritten == []
    np.testing.assert_array_equal(scope["model"].score_samples(table()), mixture.score_samples(table()))


def test_a_stream_of_random_numbers_has_no_text(mixture):
    model = copy.copy(mixture).set_params(random_state=np.random.RandomState(0))
    changed, unwritten = chosen(model)
    assert unwritten == ["random_state"] and "--seed" not in " ".join(shell_lines(model, changed, Origin()))


def test_the_shell_lines_are_quoted(mixture):
    lines = shell_lines(mixture, chosen(mixture)[0], Origin("my data.csv", 0.25, "run"))
    assert lines[0] == "ravine fit gaussian-mixture 'my data.csv' \\"
    assert "    --set 'covariance=Diagonal()' \\" in lines and "    --test-size 0.25 \\" in lines


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "iris"
    assert main(["fit", "factor-analysis", "iris", "--set", "iterations=30", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_the_command_reports_on_the_rows_that_were_kept(run, capsys):
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'}: ")
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "15 rows that the fit has not seen" in page.prose()
    assert "ravine fit factor-analysis iris" in page.prose() and "not kept with the model" not in page.prose()
    kept = json.loads((run / "recipe.json").read_text())["numbers"]["test"]
    assert markup.number(kept["log_likelihood"]) in page.prose()
    assert set(map_data(page)["names"]) <= {"0", "1", "2"}


def test_the_command_reports_on_other_rows(run, tmp_path, capsys):
    out, rows = tmp_path / "other.html", tmp_path / "rows.csv"
    X = np.random.default_rng(0).normal(size=(8, 4))
    names = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    pandas.DataFrame(X, columns=names).to_csv(rows, index=False)
    assert main(["report", str(run), str(rows), "--out", str(out)]) == 0
    assert "8 rows given to this report" in Page(out.read_text(encoding="utf-8")).prose()


def test_the_function_and_the_module_share_a_name(factors, tmp_path):
    import ravine.report

    assert ravine.report(factors, table(), path=tmp_path / "r.html").exists()
    assert callable(rv.report)


# --- the parts


def css() -> str:
    return (Path(markup.__file__).parent / "page.css").read_text(encoding="utf-8")


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", css(), re.DOTALL)
    found = dict(re.findall(r"(--\w+): (#\w{6})", light))
    return found if scheme == "light" else found | dict(re.findall(r"(--\w+): (#\w{6})", dark))


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_marks_can_be_seen(scheme):
    found = colours(scheme)
    for name in ("ink", "soft", "link", "good", "note", "warning"):
        assert contrast(found[f"--{name}"], found["--paper"]) >= 4.5, name
    for ground in ("panel", "mark"):
        assert contrast(found["--ink"], found[f"--{ground}"]) >= 4.5, ground
    for name in ("accent", "odd", "truth", "soft"):
        assert contrast(found[f"--{name}"], found["--paper"]) >= 3, name
    for name in (*(f"c{i}" for i in range(10)), "low", "high"):
        assert contrast(found[f"--{name}"], found["--panel"]) >= 2.5, name


def test_every_colour_follows_the_scheme():
    used = set(re.findall(r"var\((--\w+)\)", css()))
    assert used <= set(colours("light")) and set(colours("light")) == set(colours("dark"))
    rest = re.sub(r":root \{.*?\}", "", css(), flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{3,8}\b(?![\w-]*\s*\{)", rest)


def test_markup_escapes_everything():
    made = markup.tag("p", HOSTILE, title=ATTRIBUTE)
    assert Page(made).prose() == HOSTILE and Page(made).elements == [("p", {"title": ATTRIBUTE})]
    assert "</script" not in markup.as_json({"a": "</script>"})


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 1e6), (5.0, 5.0), (1e-9, 2e-9), (np.nan, 1.0)])
def test_ticks_lie_inside(low, high):
    axis = charts.axis(low, high)
    assert 2 <= len(axis.ticks) <= 12 and axis.low < axis.high
    assert all(axis.low - 1e-9 <= place <= axis.high + 1e-9 for place, _ in axis.ticks)


def test_a_picture_is_a_png_that_others_read():
    from io import BytesIO

    from PIL import Image

    ink = images(3)
    ink[0, 1, 1] = np.nan
    how = png.tone(ink)
    pixels = png.tiles(ink, 2, how)
    assert how.ink and pixels.shape == (9, 9, 2)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png.encode(pixels)))), pixels)
    assert tuple(pixels[1, 1]) == png.HOLE
    colour = png.tiles(np.random.default_rng(0).random((2, 3, 4, 3)), 2, png.Tone(0.0, 1.0, False))
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png.encode(colour)))), colour)


def test_columns_of_words_are_coded_alike():
    given = pandas.DataFrame({"a": [1.0, None], "b": ["x", None], "when": pandas.to_datetime(["2020-01-01", None])})
    drawn = pandas.DataFrame({"a": [2.0], "b": ["w"], "when": pandas.to_datetime(["2021-01-01"])})
    (a, b, when), (_, c, _) = look.columns([given, drawn], None)
    assert b.levels == c.levels == ("w", "x") and b.values[0] == 1.0 and c.values[0] == 0.0
    assert np.isnan([a.values[1], b.values[1], when.values[1]]).all()


def test_the_most_dependent_columns_are_found():
    stream = np.random.default_rng(0)
    X = stream.normal(size=(200, 9))
    X[:, 7] = X[:, 2] + 0.1 * stream.normal(size=200)
    columns = [look.Column(str(j), X[:, j]) for j in range(9)]
    chosen_columns = tables.most_dependent(columns)
    assert {2, 7} <= set(chosen_columns) and len(chosen_columns) == 5
    assert tables.dependence(columns[2], columns[7]) > 0.95


def test_many_rows_stay_a_small_file(factors, tmp_path):
    assert rv.report(factors, table(10_000), tmp_path / "r.html").stat().st_size < 250_000
