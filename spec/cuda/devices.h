/* Devices as cuDNN describes them, for plans without a GPU (cuDNN 9.8 or newer). */
#ifndef MPTL_SPEC_CUDA_DEVICES_H
#define MPTL_SPEC_CUDA_DEVICES_H

#define DEVICE(name, version, sms, optin, threads, memory, sm_khz, memory_khz, l2)                 \
  "{\"deviceName\":\"" name "\",\"deviceVer\":" #version                                           \
  ",\"driverVer\":13000,\"cudaDeviceId\":0,\"pciDeviceId\":0,"                                     \
  "\"isTccDriver\":0,\"supportCoopLaunch\":1,\"warpSize\":32,\"multiProcessorCount\":" #sms        \
  ",\"maxSharedMemoryPerBlock\":49152,"                                                            \
  "\"maxSharedMemoryPerBlockOptin\":" #optin                                                       \
  ",\"reservedSharedMemoryPerBlock\":1024,\"regsPerBlock\":65536,"                                 \
  "\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,"                   \
  "\"maxThreadsPerSM\":" #threads                                                                  \
  ","                                                                                              \
  "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"                      \
  "\"totalGlobalMem\":" #memory ",\"smClockRateKHz\":" #sm_khz ",\"memClockRateKHz\":" #memory_khz \
  ",\"l2CacheSize\":" #l2 "}"

#define A100 \
  DEVICE("NVIDIA A100-SXM4-40GB", 800, 108, 166912, 2048, 42505273344, 1410000, 1215000, 41943040)
#define H100 \
  DEVICE("NVIDIA H100 80GB HBM3", 900, 132, 232448, 2048, 85014872064, 1980000, 2619000, 52428800)
#define B200 \
  DEVICE("NVIDIA B200", 1000, 148, 232448, 2048, 191503532032, 1965000, 3996000, 132644864)

#endif
