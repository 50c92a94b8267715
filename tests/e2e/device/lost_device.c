// For LD_PRELOAD: Vulkan's device is lost as soon as the file that LOST_DEVICE names is there.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEVICE_LOST = -4 };

typedef void (*function)(void);
typedef function (*getter)(void *, const char *);
typedef int32_t (*submitter)(void *, uint32_t, const void *, void *);

static submitter submit;

static int32_t submit_unless_lost(void * queue, uint32_t n, const void * submits, void * fence) {
    const char * file = getenv("LOST_DEVICE");
    return file && access(file, F_OK) == 0 ? DEVICE_LOST : submit(queue, n, submits, fence);
}

static function found(const char * by, void * of, const char * name) {
    void *         library = dlopen("libvulkan.so.1", RTLD_LAZY);
    const getter   get     = (getter) dlsym(library, by);
    const function it      = get(of, name);
    if (it && strcmp(name, "vkQueueSubmit") == 0) {
        submit = (submitter) it;
        return (function) submit_unless_lost;
    }
    return it;
}

function vkGetDeviceProcAddr(void * device, const char * name) {
    return found("vkGetDeviceProcAddr", device, name);
}

function vkGetInstanceProcAddr(void * instance, const char * name) {
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) {
        return (function) vkGetDeviceProcAddr;
    }
    return found("vkGetInstanceProcAddr", instance, name);
}
