/* A stand-in for libnvidia-ml.so.1 that answers from a file, so that the tests go through nvml-wrapper itself.
 *
 * The file `state` lies beside the library and is read at every call:
 *
 *     init CODE                                           what nvmlInit_v2 returns
 *     hang FLAG                                           1: a reading waits until this is 0, as in a driver's reset
 *     gpu UTIL USED TOTAL MILLIWATTS OPEN READ MIG        one line a device: percent, bytes, bytes, power, the codes of
 *                                                         opening and reading it, and whether MIG is enabled
 *
 * A reading that fails kills all handles until the next nvmlInit_v2, as a reset does. Every nvmlInit_v2 adds a byte to
 * the file `starts`. A device's UUID is GPU-fake-INDEX; the handle is its index + 1.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };
enum { MOST = 16 };

typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_t;
typedef struct { unsigned int util; unsigned long long used, total; unsigned int power, open, read, mig; } gpu_t;
typedef struct { unsigned int init, hang, count; gpu_t gpus[MOST]; } state_t;

static int dead = 1;

static FILE *beside(const char *name, const char *how) {
    Dl_info self;
    char path[4096];
    dladdr((void *)&beside, &self);
    const char *slash = strrchr(self.dli_fname, '/');
    snprintf(path, sizeof path, "%.*s/%s", (int)(slash - self.dli_fname), self.dli_fname, name);
    return fopen(path, how);
}

static state_t load(void) {
    state_t state = {0};
    char line[256];
    FILE *file = beside("state", "r");
    if (!file) {
        state.init = 999;
        return state;
    }
    while (fgets(line, sizeof line, file)) {
        gpu_t *gpu = &state.gpus[state.count];
        if (sscanf(line, "init %u", &state.init) == 1 || sscanf(line, "hang %u", &state.hang) == 1) continue;
        if (state.count < MOST && sscanf(line, "gpu %u %llu %llu %u %u %u %u", &gpu->util, &gpu->used, &gpu->total,
                                         &gpu->power, &gpu->open, &gpu->read, &gpu->mig) == 7)
            state.count++;
    }
    fclose(file);
    return state;
}

static int find(void *device, gpu_t *gpu) {
    unsigned long index = (unsigned long)device - 1;
    state_t state = load();
    if (dead) return LOST;
    if (index >= state.count) return INVALID_ARGUMENT;
    *gpu = state.gpus[index];
    return SUCCESS;
}

int nvmlInit_v2(void) {
    FILE *starts = beside("starts", "a");
    if (starts) {
        fputc('x', starts);
        fclose(starts);
    }
    int code = (int)load().init;
    if (code == SUCCESS) dead = 0;
    return code;
}

int nvmlShutdown(void) {
    dead = 1;
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "535.104.05");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = load().count;
    return dead ? UNINITIALIZED : SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    state_t state = load();
    if (dead) return UNINITIALIZED;
    if (index >= state.count) return INVALID_ARGUMENT;
    *device = (void *)(unsigned long)(index + 1);
    return (int)state.gpus[index].open;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    unsigned int index;
    if (sscanf(uuid, "GPU-fake-%u", &index) != 1) return NOT_FOUND;
    int code = nvmlDeviceGetHandleByIndex_v2(index, device);
    return code == INVALID_ARGUMENT ? NOT_FOUND : code;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-fake-%lu", (unsigned long)device - 1);
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    (void)device;
    snprintf(name, length, "Fake H100");
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
    gpu_t gpu;
    while (load().hang) usleep(1000);
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    if (gpu.mig) return NOT_SUPPORTED;
    if (gpu.read != SUCCESS && gpu.read != NOT_SUPPORTED) dead = 1;
    rates->gpu = gpu.util;
    rates->memory = 0;
    return (int)gpu.read;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_t *memory) {
    gpu_t gpu;
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    memory->total = gpu.total;
    memory->used = gpu.used;
    memory->free = gpu.total - gpu.used;
    memory->reserved = 0;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
    gpu_t gpu;
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    *milliwatts = gpu.power;
    /* A virtual GPU does not tell. */
    return gpu.power ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *pending) {
    gpu_t gpu;
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    *current = *pending = gpu.mig;
    return SUCCESS;
}
