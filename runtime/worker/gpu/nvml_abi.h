// The part of NVIDIA's management library that PESC uses, declared here: its header comes with the
// CUDA toolkit, which a worker's machine need not have. Names and layouts are those of nvml.h;
// they are stable since the versions that the functions' suffixes name.
#pragma once

namespace pesc::worker::nvml {

using Return = int;
inline constexpr Return kSuccess = 0, kUninitialized = 1, kInvalidArgument = 2, kNotSupported = 3,
                        kNoPermission = 4, kNotFound = 6, kInsufficientSize = 7,
                        kDriverNotLoaded = 9, kTimeout = 10, kFunctionNotFound = 13,
                        kGpuIsLost = 15, kResetRequired = 16, kVersionMismatch = 18,
                        kGpuNotFound = 28, kUnknown = 999;

using Device = struct DeviceTag*;
using EventSet = struct EventSetTag*;

struct Memory {
  unsigned long long total, free, used;  // used: with what the driver has reserved
};
struct MemoryV2 {
  unsigned version;
  unsigned long long total, reserved, free, used;  // used: without it
};
inline constexpr unsigned kMemoryV2 = sizeof(MemoryV2) | 2u << 24;

struct ProcessV1 {
  unsigned pid;
  unsigned long long bytes;
};
// Also what _v3 fills in, but for the first drivers of R535, whose entries are one number longer.
struct ProcessV2 {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu_instance, compute_instance;
};
inline constexpr unsigned long long kNotAvailable = ~0ull;

struct Utilization {
  unsigned gpu, memory;  // percent
};

struct EventData {
  Device device;
  unsigned long long type, data;
  unsigned gpu_instance, compute_instance;
};
inline constexpr unsigned long long kEventXid = 8;

inline constexpr unsigned kTextBytes = 96;  // of every text it fills in
inline constexpr int kTemperatureGpu = 0, kEccUncorrected = 1, kEccSinceLoad = 0;
inline constexpr int kComputeProhibited = 2, kComputeExclusive = 3;

}  // namespace pesc::worker::nvml
