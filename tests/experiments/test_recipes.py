"""The recipes and the README: every flag that they set exists, every file and command that they name is there."""

import re
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "experiments" / "flagfiles").rglob("*.flags"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_sets_flags_that_exist(recipe, load):
    _, common = load(recipe.parent.name)
    told = [line[2:].partition("=")[0] for line in recipe.read_text().splitlines() if line.startswith("--")]
    assert told and len(told) == len(set(told))
    assert set(told) <= {name for names in common.GROUPS.values() for name in names}
    with flagsaver.flagsaver():
        flags.FLAGS([recipe.parent.name, f"--flagfile={recipe}"])


def test_the_readme_names_what_is_there():
    text = (ROOT / "README.md").read_text()
    names = "|".join(sorted({recipe.parent.name for recipe in RECIPES}))
    for recipe in re.findall(rf"`((?:{names})/\w+)`", text):
        assert (ROOT / "experiments" / "flagfiles" / f"{recipe}.flags").exists() or recipe.endswith("/NAME"), recipe
    for path in re.findall(r"`((?:dlfx|scripts|experiments|\.ci|docs)/[\w./-]+)`", text) + re.findall(
        r"\]\((\S+?)\)", text
    ):
        assert (ROOT / path).exists(), path


def test_the_map_is_what_reproduce_prints():
    from scripts import reproduce

    text = (ROOT / "README.md").read_text()
    for row in reproduce.ROWS:
        assert reproduce.table_row(row, "").removesuffix(" |") in text, row.recipe
