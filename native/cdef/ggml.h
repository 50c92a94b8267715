// ggml.h: what llamabox uses of it, in upstream's order.

enum ggml_type {
    GGML_TYPE_F32,
    GGML_TYPE_F16,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q8_0,
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_BF16,
    GGML_TYPE_COUNT,
    ...
};

enum ggml_log_level {
    GGML_LOG_LEVEL_NONE,
    GGML_LOG_LEVEL_DEBUG,
    GGML_LOG_LEVEL_INFO,
    GGML_LOG_LEVEL_WARN,
    GGML_LOG_LEVEL_ERROR,
    GGML_LOG_LEVEL_CONT,
    ...
};

typedef bool (*ggml_abort_callback)(void * data);

const char * ggml_version(void);
const char * ggml_commit(void);

int64_t      ggml_blck_size(enum ggml_type type);
size_t       ggml_type_size(enum ggml_type type);
const char * ggml_type_name(enum ggml_type type);

typedef void (*ggml_log_callback)(enum ggml_log_level level, const char * text, void * user_data);

void ggml_log_set(ggml_log_callback log_callback, void * user_data);

enum ggml_sched_priority {
    GGML_SCHED_PRIO_LOW,
    GGML_SCHED_PRIO_NORMAL,
    GGML_SCHED_PRIO_MEDIUM,
    GGML_SCHED_PRIO_HIGH,
    GGML_SCHED_PRIO_REALTIME,
    ...
};

struct ggml_threadpool_params {
    bool                     cpumask[...];
    int                      n_threads;
    enum ggml_sched_priority prio;
    uint32_t                 poll;
    bool                     strict_cpu;
    bool                     paused;
    ...;
};

typedef struct ggml_threadpool * ggml_threadpool_t;

struct ggml_threadpool_params ggml_threadpool_params_default(int n_threads);
