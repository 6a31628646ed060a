"""Trains, evaluates or describes the network of a config, or runs the experiment that it names.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart [--config.field=value ...]

`deepnmf-jax` is the same program for those who have installed the package (`deepnmf_jax.command_line`).
"""

import os
import runpy
import sys

if __name__ == "__main__":
    # By its path: to import the package is to import JAX, and Ctrl-C would meanwhile print a traceback.
    programs = os.path.join(os.path.dirname(os.path.abspath(__file__)), "deepnmf_jax", "programs.py")
    runpy.run_path(programs)["start_process"]()
    try:
        from deepnmf_jax import command_line
    except ImportError as error:
        sys.exit(f"{error}; install what training needs: pip install -r requirements.txt")
    except ValueError as error:  # JAX does not understand one of its variables.
        sys.exit(f"{type(error).__name__}: {error}")
    command_line.start(sys.argv)
