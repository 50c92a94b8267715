# Included by llama.cpp's CMakeLists.txt behind its project(): see LLAMA in ../build/libraries.py.
# What llamabox adds to llama.cpp's own libraries, none of whose files is changed.
set(LLAMABOX_ADDED ${CMAKE_CURRENT_LIST_DIR})
# What GCC says of its own intrinsics, and of functions in ggml's headers.
set(LLAMABOX_FLAGS "-Wno-maybe-uninitialized -Wno-unused-function")

# The kernels, into ggml's CPU backend or into each of its variants: compiled for the same processor as the rest of it.
function(llamabox_add_kernels)
    get_property(targets DIRECTORY ${CMAKE_SOURCE_DIR}/ggml/src PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target ${targets})
        get_target_property(type ${target} TYPE)
        if(target MATCHES "^ggml-cpu" AND NOT type STREQUAL "OBJECT_LIBRARY")
            target_sources(${target} PRIVATE ${LLAMABOX_ADDED}/kernels.cpp)
            set_property(SOURCE ${LLAMABOX_ADDED}/kernels.cpp TARGET_DIRECTORY ${target}
                         PROPERTY COMPILE_FLAGS ${LLAMABOX_FLAGS})
        endif()
    endforeach()
endfunction()

# Another way to clear buffers, where the linker can put one function in another's place.
function(llamabox_add_clear)
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        target_sources(llama PRIVATE ${LLAMABOX_ADDED}/clear.c)
        set_property(SOURCE ${LLAMABOX_ADDED}/clear.c TARGET_DIRECTORY llama PROPERTY COMPILE_FLAGS "-std=gnu11")
        target_link_options(llama PRIVATE -Wl,--wrap=ggml_backend_buffer_clear)
    endif()
endfunction()

cmake_language(DEFER CALL llamabox_add_kernels)
cmake_language(DEFER CALL llamabox_add_clear)
