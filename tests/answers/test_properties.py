"""What must hold of every answer: units against pint, stance, wrappers, and no reading that depends on order."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trl_onevision.answers import choice
from trl_onevision.answers.choice import read_choices
from trl_onevision.answers.compare import same
from trl_onevision.answers.markup import plain
from trl_onevision.answers.parse import read
from trl_onevision.answers.stance import is_asked
from trl_onevision.answers.units import read_unit
from trl_onevision.rewards import accuracy_reward

fast = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

UNITS = {  # as people write them: as pint does
    "m": "m", "cm": "cm", "millimetres": "mm", "km": "km", "inches": "inch", "ft": "ft", "miles": "mile", "g": "g",
    "kg": "kg", "mg": "mg", "lb": "lb", "tonnes": "tonne", "s": "s", "ms": "ms", "minutes": "min", "h": "hour",
    "days": "day", "weeks": "week", "L": "L", "mL": "mL", "cubic meters": "m^3", "cm³": "cm^3", "gallons": "gallon",
    "m²": "m^2", "square centimeters": "cm^2", "hectares": "hectare", "m/s": "m/s", "km/h": "km/hour",
    "miles per hour": "mile/hour", "m/s^2": "m/s^2", "N": "N", "kN": "kN", "J": "J", "kJ": "kJ", "cal": "cal",
    "kWh": "kWh", "eV": "eV", "W": "W", "MW": "MW", "mW": "mW", "V": "V", "kV": "kV", "A": "A", "mA": "mA", "μA": "uA",
    "Ω": "ohm", "kΩ": "kohm", "Pa": "Pa", "kPa": "kPa", "atm": "atm", "Hz": "Hz", "MHz": "MHz", "mol": "mol",
    "mmol": "mmol", "K": "K", "g/cm^3": "g/cm^3", "kg/m³": "kg/m^3", "N·m": "N*m", "T": "T", "Wb": "Wb",
    "bytes": "byte", "radians": "radian", "degrees": "degree", "F": "F", "H": "H",
}  # fmt: skip
MONEY = ["dollars", "cents", "€", "£", "yen", "元"]


def test_units_pay_where_size_and_dimension_agree():
    pint = pytest.importorskip("pint")
    registry = pint.UnitRegistry()
    sizes = {}
    for unit, name in UNITS.items():
        base = registry.Quantity(5, registry.Unit(name)).to_base_units()
        sizes[unit] = base.magnitude, "angle" if name in ("radian", "degree") else str(base.dimensionality)
    wrong = []
    for one, two in itertools.product(UNITS, repeat=2):
        (size, dimension), (other, kind) = sizes[one], sizes[two]
        # The letter of a farad is that of a Fahrenheit, and joules are newton metres
        expected = dimension == kind and abs(size - other) <= 1e-6 * size
        if (same(read(f"5 {one}", True), read(f"5 {two}", True)) is True) is not expected:
            wrong.append((one, two))
    assert wrong == []


def test_money_is_a_dimension_of_its_own():
    for one, two in itertools.product([*MONEY, "cm", "kg"], repeat=2):
        assert bool(same(read(f"5 {one}", True), read(f"5 {two}", True))) is (one == two)


def test_a_tower_of_powers_is_no_unit():
    assert read_unit("m**9**9**9**9") == read_unit("m^99999999999") == ()


GOLDS = {
    "choice": ("A", ["red", "green", "blue"]),
    "number": ("12", None),
    "count": ("7", None),
    "math": (r"\frac{1}{2}", None),
    "text": ("Paris", None),
    "yes_no": ("yes", None),
    "date": ("2024-03-05", None),
    "time": ("3:05", None),
}
DENIALS = [
    "not {}", "It is not {}", "{} is wrong", "{} is not the answer", "anything but {}", "all except {}",
    "cannot be {}", "never {}", "{} is incorrect", "It isn't {}", "far from {}", "不是{}", "{}不对", "除了{}",
    "neither {} nor that", "{} (wrong)", "{}: wrong", "{} ✗", "~~{}~~", "{}有误", "I doubt it is {}",
    "{} is impossible", "It is false that it is {}", "I don't think it is {}", "{} doesn't fit", "nobody says {}",
    "{}以外", "并非{}",
]  # fmt: skip
HEDGES = [
    "{} or something else", "maybe {}", "perhaps {}", "either {} or not", "{}, or maybe not", "possibly {}",
    "{} (or not)", "It might be {}", "It could be {}", "{}或其他", "可能是{}", "也许{}", "e.g. {}", "for example {}",
    "such as {}", "something like {}", "{}, etc.", "{} and so on", "{}?", "some say {}", "例如{}", "{}, 等等", "{}吗?",
]  # fmt: skip
WRAPPERS = [
    "{}", " {} ", r"\( {} \)", r"\[ {} \]", "$ {} $", "$$ {} $$", "**{}**", "`{}`", "```\n{}\n```", "“{}”", '"{}"',
    "'{}'", r"\text{{{}}}", r"\mathrm{{{}}}", r"\textbf{{{}}}", r"\boxed{{{}}}", "{}.", "<answer>{}</answer>",
    "**Answer:** {}",
]  # fmt: skip


def paid(task, said):
    gold, choices = GOLDS[task]
    (value,) = accuracy_reward([f"<answer>{said}</answer>"], solution=[gold], task=[task], choices=[choices])
    return value


@pytest.mark.parametrize("task", GOLDS)
@pytest.mark.parametrize("form", [*DENIALS, *HEDGES])
def test_a_denied_or_hedged_gold_earns_nothing(task, form):
    for wrapper in ("{}", r"\boxed{{{}}}", "**{}**"):
        assert paid(task, wrapper.format(form.format(GOLDS[task][0]))) == 0
        assert paid(task, form.format(wrapper.format(GOLDS[task][0]))) == 0


@pytest.mark.parametrize("task", GOLDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_gold_earns_in_every_wrapper(task, wrapper):
    assert paid(task, wrapper.format(GOLDS[task][0])) == 1


PIECES = [
    "$", "$$", r"\(", r"\)", r"\[", r"\text{", r"\mathrm{", r"\boxed{", "{", "}", "**", "*", "`", "```", "“", "”", '"',
    "'", "_", "^", "²", "½", "°", r"^\circ", "~", "５", "Ｂ", "5", "B", "cm", " ", "\n", r"\$", "\\", r"\frac", "%",
    ",", "{,}",
]  # fmt: skip


@fast
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_plain_is_idempotent(text):
    assert plain(plain(text)) == plain(text)


OPTIONS = ["red", "dark red", "5 cm", r"$\frac{1}{2}$", "No", "all of them", "64°"]


@fast
@given(st.permutations(OPTIONS), st.sampled_from([*OPTIONS, "0.5", "50 mm", "the dark red one", "not red", "64"]))
def test_a_verdict_by_words_does_not_depend_on_the_order_of_the_options(options, said):
    def names(choices):
        return {choices["ABCDEFG".index(label)] for label in read_choices(said, choices)}

    assert names(options) == names(OPTIONS)


WORST = ["(", "{", "-", "1+", "x", "5 ", "not ", "A, ", r"\frac{", "√", "^2", "'", "\\", "$", "，"]


@pytest.mark.parametrize("piece", WORST)
def test_reading_costs_what_its_length_says(piece, linear):
    linear(lambda body: plain(body), piece * (9_000 // len(piece)))
    linear(lambda body: read_choices(body, ["red", "blue"]), piece * (9_000 // len(piece)))


@pytest.mark.parametrize(
    ("left", "right"), [("\\", "!"), ("\\", "½"), ("#\t", ""), ("1", "\n "), ("\\text{$", "$}"), ("~~", "~")]
)
def test_dress_in_layers_is_taken_off_in_time_that_grows_with_it(left, right, linear):
    """Thousands of layers took a pass over the text each, and a run of white space a try from each of its spaces."""

    def undress(count):
        plain.cache_clear()
        plain(left * len(count) + right * len(count) + "x")

    linear(undress, range(9_000 // len(left + right)))


def test_of_many_labels_none_reads_all_that_follows_it(monkeypatch):
    """Eight hundred characters of "A,A,A," took more than a second, in every completion of a batch."""
    read = []
    monkeypatch.setattr(choice.parse, "read", lambda text, *_: read.append(len(text)))
    assert read_choices("A,B,A," * 300, ["red", "blue"]) is not None
    assert sum(read) < 20 * 1800


def test_question_marks_inside_of_a_text_cost_what_their_number_says(linear):
    assert not linear(lambda marks: is_asked(marks + "x"), "?" * 100_000)
