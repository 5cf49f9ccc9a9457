"""Equality of expressions: against hand-worked pairs, with as many digits as it takes."""

import pytest

from trl_onevision.answers.compare import same
from trl_onevision.answers.parse import read
from trl_onevision.rewards import accuracy_reward


@pytest.mark.parametrize(
    ("gold", "given", "expected"),
    [
        ("0", r"\sqrt{2}^2-2", True),
        ("1", "1+10^{-301}", False),
        (r"\pi", r"\pi+10^{-320}", False),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False),
        ("10^{100}+1", "10^{100}", False),
        ("2^{100}", "1267650600228229401496703205376", True),
        ("2^{100}", "1267650600228229401496703205377", False),
        (r"\sqrt{x^2}", "x", False),
        ("|x|", "x", False),
        (r"\ln x^2", r"2\ln x", True),
        (r"\sin 2x", r"2\sin x\cos x", True),
        (r"\sin^2x+\cos^2x", "1", True),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2", True),
        (r"e^{\ln 5}", "5", True),
        (r"\arctan 1", r"\pi/4", True),
        (r"\arcsin 1", r"\pi/2", True),
        (r"\arccos \frac12", r"\frac{\pi}{3}", True),
        (r"\cos 60^\circ", "1/2", True),
        (r"\tan 45°", "1", True),
        (r"\log_2 8", "3", True),
        (r"\binom{5}{2}", "10", True),
        (r"\sqrt[3]{8}", "2", True),
        ("a-b", "b-a", False),
        (r"\sqrt{2gh}", r"\sqrt{2g}\sqrt{h}", True),
        ("y=2x+1", "2x-y+1=0", True),
        ("x>5", "5<x", True),
        ("x>5", "x≥5", False),
        (r"\{1, 2\}", "2, 1", True),
        ("(1, 2)", "(2, 1)", False),
        ("±2", "2 or -2", True),
        (r"3.0 \text{ cm}", "30 mm", True),
    ],
)
def test_pairs(gold, given, expected):
    assert same(read(gold), read(given)) is expected


@pytest.mark.parametrize("task", [None, "text", "math"])
@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("H2O", "H_2O", 1), ("H2O", "$H_{2}O$", 1), ("H2O", r"\mathrm{H}_2\mathrm{O}", 1), ("H2O", "H₂O", 1),
        ("H2O", r"\ce{H2O}", 1), ("Ca(OH)2", "Ca(OH)_2", 1), ("C6H12O6", "C_6H_{12}O_6", 1), ("O2", "O_2", 1),
        ("H2O", "H2O2", 0), ("H2O", "H3O", 0), ("H2O", "2HO", 0), ("CO2", "Co2", 0), ("H2O", "OH2", 0),
        ("H2O", "not H2O", 0), ("H2O", "H2O or CO2", 0), ("CO2", "C + O2", 0),
    ],
)  # fmt: skip
def test_a_chemical_formula_is_no_algebra(gold, answer, same, task):
    columns = {} if task is None else {"task": [task]}
    assert accuracy_reward([f"<answer>{answer}</answer>"], solution=[gold], **columns) == [same]
