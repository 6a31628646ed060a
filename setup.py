"""What pyproject.toml cannot say: a wheel holds the recipes of configs/ as deepnmf_jax/configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RECIPES = Path(__file__).resolve().parent / "configs"


class BuildWithRecipes(build_py):
    """Copies them into the built package. An editable install reads them where they are."""

    def run(self) -> None:
        """Builds the package as setuptools does, and adds the recipes."""
        super().run()
        if not self.editable_mode:
            for target, source in self._recipes().items():
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that are built."""
        return [*super().get_outputs(include_bytecode), *self._recipes()]

    def _recipes(self) -> dict[str, Path]:
        """The files in the built package, and where they come from."""
        folder = Path(self.build_lib) / "deepnmf_jax" / "configs"
        return {str(folder / file.relative_to(RECIPES)): file for file in sorted(RECIPES.rglob("*.py"))}


setup(cmdclass={"build_py": BuildWithRecipes})
