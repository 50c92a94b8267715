# Included by stable-diffusion.cpp's CMakeLists.txt behind its project(): see DIFFUSION in libraries.py.
# What it computes with is ggml, which keeps its -O3. Its own files build graphs and read vocabularies: with -O2 they
# compile in two thirds of the time.
cmake_language(DEFER CALL target_compile_options stable-diffusion PRIVATE -O2)
