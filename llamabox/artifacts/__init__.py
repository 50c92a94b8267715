"""What is built or downloaded: where it is kept, how pip gets it, how a file of it is known again.

The program and the build of its native libraries share these modules. `build_native.py` runs before anything is
installed, so they import the standard library and each other alone.
"""
