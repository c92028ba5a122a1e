/* Properties of GPUs as cuDNN writes them, for plans without a GPU. */
#ifndef TERNION_GPU_PROFILES_H
#define TERNION_GPU_PROFILES_H

#define TN_PROFILE(version, sms, shared, l2, memory, clock, memory_clock)                          \
    "{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"                   \
    "\"regsPerBlock\":65536,\"multiProcessorCount\":" sms ",\"warpSize\":32,"                      \
    "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":" shared ","               \
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"       \
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"    \
    "\"supportCoopLaunch\":1,\"totalGlobalMem\":" memory ",\"smClockRateKHz\":" clock ","          \
    "\"memClockRateKHz\":" memory_clock ",\"l2CacheSize\":" l2 ",\"cudaDeviceId\":0,"              \
    "\"deviceVer\":" version ",\"driverVer\":13000,\"deviceName\":\"\"}"

#define TN_PROFILE_H200                                                                            \
    TN_PROFILE("900", "132", "232448", "62914560", "150754820096", "1980000", "3201000")
#define TN_PROFILE_A100                                                                            \
    TN_PROFILE("800", "108", "166912", "41943040", "85174583296", "1410000", "1593000")

#endif
