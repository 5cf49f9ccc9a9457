"""What a plain `pip install` of the built wheel gives, and what importing it costs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel was unpacked, away from the checkout, and what runs Python on it."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}

    def run(*arguments, **options):
        return subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, **options
        )

    where = run("-c", "import trl_onevision; print(trl_onevision.__file__)").stdout
    assert str(folder / "site") in where
    return folder, run


def test_the_wheel_holds_the_package_the_recipes_and_the_licence_and_no_tests(installed):
    folder, _ = installed
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for recipe in (CHECKOUT / "recipes").glob("*.yaml"):
        assert f"trl_onevision/recipes/{recipe.name}" in names
    assert "trl_onevision/bench/lmms_eval/r1_onevision_bench.yaml" in names
    assert "trl_onevision/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


def test_the_wheel_lists_and_copies_recipes(installed):
    folder, run = installed
    program = "from trl_onevision.cli import app; app()"
    listed = run("-c", program, "recipes")
    assert listed.returncode == 0, listed.stderr
    for recipe in (CHECKOUT / "recipes").glob("*.yaml"):
        assert recipe.stem in listed.stdout
    copied = run("-c", program, "recipes", "quickstart-sft", "--output", "mine.yaml")
    assert copied.returncode == 0, copied.stderr
    assert (folder / "mine.yaml").read_text() == (CHECKOUT / "recipes" / "quickstart-sft.yaml").read_text()


@pytest.mark.slow
def test_the_wheel_runs_the_quickstart(installed):
    folder, run = installed
    program = (
        "from pathlib import Path; from trl_onevision.quickstart.run import Size, quickstart; "
        "quickstart(Path('run'), size=Size(sft_rows=64, grpo_rows=64, held_out_rows=24, steps=2))"
    )
    finished = run("-c", program)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (folder / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("trl_onevision", ("torch", "trl", "transformers", "datasets")),
        ("trl_onevision.rewards", ("torch", "trl", "transformers", "datasets")),
        ("trl_onevision.data", ("torch", "trl")),
        ("trl_onevision.cli", ("torch", "trl", "transformers", "datasets", "matplotlib", "sklearn")),
    ],
)
def test_importing_stays_light(module, never):
    program = f"import sys, {module}; print([name for name in {never!r} if name in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if name != "TRL_ONEVISION"}
    loaded = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]", loaded.stdout + loaded.stderr


def test_the_readme_names_two_commands_that_the_package_and_ci_know():
    readme = (CHECKOUT / "README.md").read_text()
    commands = [line for line in readme.splitlines() if line.startswith("pip install") and "&&" in line]
    assert len(commands) == 2
    assert commands[0].endswith("trl-onevision quickstart --output runs/quickstart")
    assert commands[1].endswith("&& pytest")
