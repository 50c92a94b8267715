// ggml-cpu.h: enums only. Its functions live in a loadable backend of portable builds and cannot be linked against.

enum ggml_numa_strategy {
    GGML_NUMA_STRATEGY_DISABLED,
    GGML_NUMA_STRATEGY_DISTRIBUTE,
    GGML_NUMA_STRATEGY_ISOLATE,
    GGML_NUMA_STRATEGY_NUMACTL,
    GGML_NUMA_STRATEGY_MIRROR,
    ...
};
