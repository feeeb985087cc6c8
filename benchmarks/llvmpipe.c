/* Mesa's llvmpipe in the place of SwiftShader: the library that Chromium takes for SwiftShader's.
 *
 * Chromium offers no other software adapter than SwiftShader, which has no shader-f16. llvmpipe has it, but
 * is turned down twice: its vendor is not SwiftShader's, and it does not promise that arrays of buffers and
 * images may be indexed by what a shader computes, which no compute shader of WebGPU can do. This library says
 * both for it and passes everything else on.
 *
 * LLVMPIPE is the path of Mesa's driver. Types are those of the Vulkan specification, 1.0 and 1.1, as offsets: no headers of
 * Vulkan are needed to build it.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum {
    VENDOR = 0x1AE0, DEVICE = 0xC0DE,                      /* SwiftShader's */
    FEATURES = 55,                                         /* booleans of VkPhysicalDeviceFeatures */
    FIRST_INDEXING = 33, LAST_INDEXING = 36,               /* shaderUniformBufferArrayDynamicIndexing ... */
    PHYSICAL_DEVICE_FEATURES_2 = 1000059000                /* VkStructureType */
};

/* An extensible structure: its type, the next one, and what it holds. */
typedef struct Chain {
    int32_t type;
    struct Chain *next;
    uint32_t content[];
} Chain;

typedef struct {
    int32_t type;
    Chain *next;
    uint32_t flags, queues;
    const void *queue_infos;
    uint32_t layers;
    const void *layer_names;
    uint32_t extensions;
    const void *extension_names;
    uint32_t *features;
} DeviceCreateInfo;

typedef void (*Function)(void);
typedef void (*Describe)(void *, uint32_t *);
typedef void (*DescribeChain)(void *, Chain *);
typedef int32_t (*CreateDevice)(void *, const DeviceCreateInfo *, const void *, void *);

static Function (*lookup)(void *, const char *);
static Describe properties, features;
static DescribeChain properties2, features2;
static CreateDevice create_device;
static uint32_t real[FEATURES];

/* VkPhysicalDeviceProperties begins with versions of API and driver, vendor and device. */
static void pose(uint32_t *described) {
    described[2] = VENDOR;
    described[3] = DEVICE;
}

static void promise(uint32_t *described) {
    memcpy(real, described, sizeof real);
    for (int i = FIRST_INDEXING; i <= LAST_INDEXING; i++) described[i] = 1;
}

static void take_back(uint32_t *wanted) {
    for (int i = 0; i < FEATURES; i++) wanted[i] &= real[i];
}

static void our_properties(void *device, uint32_t *out) { properties(device, out), pose(out); }
static void our_properties2(void *device, Chain *out) { properties2(device, out), pose(out->content); }
static void our_features(void *device, uint32_t *out) { features(device, out), promise(out); }
static void our_features2(void *device, Chain *out) { features2(device, out), promise(out->content); }

static int32_t our_create_device(void *device, const DeviceCreateInfo *info, const void *allocator, void *out) {
    if (info->features) take_back(info->features);
    for (Chain *part = info->next; part; part = part->next)
        if (part->type == PHYSICAL_DEVICE_FEATURES_2) take_back(part->content);
    return create_device(device, info, allocator, out);
}

static void load(void) {
    void *driver = dlopen(LLVMPIPE, RTLD_NOW | RTLD_LOCAL);
    if (driver) *(void **)&lookup = dlsym(driver, "vk_icdGetInstanceProcAddr");
    if (!lookup) fprintf(stderr, "llvmpipe: %s\n", dlerror());
}

#define OURS(function, name, ours) \
    if (!strcmp(wanted, name)) return *(Function *)&function = found, (Function)(ours)

__attribute__((visibility("default"))) Function vkGetInstanceProcAddr(void *instance, const char *wanted) {
    if (!lookup) load();
    if (!lookup) return NULL;
    if (!strcmp(wanted, "vkGetInstanceProcAddr")) return (Function)vkGetInstanceProcAddr;
    Function found = lookup(instance, wanted);
    if (!found) return NULL;
    OURS(properties, "vkGetPhysicalDeviceProperties", our_properties);
    OURS(properties2, "vkGetPhysicalDeviceProperties2", our_properties2);
    OURS(features, "vkGetPhysicalDeviceFeatures", our_features);
    OURS(features2, "vkGetPhysicalDeviceFeatures2", our_features2);
    OURS(create_device, "vkCreateDevice", our_create_device);
    return found;
}
