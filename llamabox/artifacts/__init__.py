"""Builds and downloads: where they are kept, how pip gets them, how one of their files is known again.

The program and the build of its native libraries share these modules. `build_native.py` runs before anything is
installed, so they import the standard library and each other alone.
"""
