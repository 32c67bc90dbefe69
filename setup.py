"""What is compiled of a wheel (tools/compiling.py). All else that setuptools asks is in setup.cfg."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))

from compiling import PLACE, extensions

if "bdist_wheel" in sys.argv:
    setup(ext_modules=extensions(), options={"build": {"build_base": str(PLACE)}})
else:
    setup()
