"""What pyproject.toml cannot say: configs/ is installed as diffjax/configs, and found by name."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["diffjax*"]), "diffjax.configs"],
    package_dir={"diffjax.configs": "configs"},
)
