"""The original's module paths: `surestep/__init__.py` puts this folder on the path of the package."""
