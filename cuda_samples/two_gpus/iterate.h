#pragma once

#include <cstdint>
#include <string>

#include "common/surroundings.h"
#include "two_gpus/machine.h"

namespace samples::two_gpus {

struct Options {
  Plate plate;
  std::uint64_t iterations = 5000;
  double tolerance = 0;
  std::uint64_t checkpoint_seconds = 60;
  std::string verify = "none";
  bool cpu = false, write_field = false;
};

// False: --help was asked for. Throws Failure(kUsage).
bool parse_options(int argc, char** argv, Options* out);

// A run between two iterations.
struct State {
  std::uint64_t iterations = 0;
  double change = 0;  // the largest of a cell, in the last iteration
  double seconds = 0;
  Field field;
};

// The checkpoint: 80 bytes of header, then the field, little-endian.
//    0  "PESCHEAT"    40  f64 change
//    8  u64 version   48  f64 seconds
//   16  u64 width     56  u64 iterations
//   24  u64 height    64  u64 0
//   32  u64 seed      72  u32 CRC-32 of the field, u32 CRC-32 of the 76 bytes before
std::string encode_checkpoint(const Plate& plate, const State& state);

// What is wrong with the bytes, in words; nothing when they are fine.
std::string decode_checkpoint(const std::string& bytes, const Plate& plate, State* out);

// temperature.bin: "PESCTEMP", u64 width, u64 height, u64 CRC-32 of the field, then the field with
// its border, row by row, in single precision. In Python:
//   numpy.fromfile("temperature.bin", "<f4", offset=32).reshape(height + 2, width + 2)
void write_field(const std::string& path, const Plate& plate, const Field& field);

// Whether the options' iterations are done, or nothing changes any more.
bool finished(const Options& options, const State& state);

// Goes on from the checkpoint if there is a good one. A state that is not finished was stopped, and
// saved.
State iterate(const Options& options, Machine& machine, const Surroundings& around);

}  // namespace samples::two_gpus
