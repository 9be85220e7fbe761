#include "two_gpus/iterate.h"

#include <algorithm>
#include <cstring>

#include "common/arguments.h"
#include "common/bytes.h"
#include "common/crc32.h"
#include "common/files.h"

namespace samples::two_gpus {
namespace {

constexpr char kMagic[] = "PESCHEAT", kFieldMagic[] = "PESCTEMP";
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kHeader = 80;
constexpr std::uint64_t kMaxSide = 1'000'000;

// The GPUs are asked for the largest change, which makes them wait, once in so many iterations;
// always at the same ones, so that a run that resumes ends where the other one does.
constexpr std::uint64_t kLook = 100;

std::uint32_t field_crc(const Field& field) {
  return crc32(field.data(), field.size() * sizeof(float));
}

void append_field(std::string& out, const Field& field) {
  out.append(reinterpret_cast<const char*>(field.data()), field.size() * sizeof(float));
}

State begin(const Options& options, const Surroundings& around) {
  State state;
  std::string bytes;
  if (around.load(bytes)) {
    const std::string trouble = decode_checkpoint(bytes, options.plate, &state);
    if (trouble.empty()) return state;
    around.say("the checkpoint is not used: " + trouble + "; starting from the beginning");
    state = State();
  }
  state.field = initial_field(options.plate);
  return state;
}

}  // namespace

bool parse_options(int argc, char** argv, Options* out) {
  Arguments arguments("two_gpus",
                      "Heat in a plate, its rows divided between two GPUs that exchange the rows\n"
                      "where they meet. Writes summary.json to the output directory.");
  arguments.number("width", &out->plate.width, 1, kMaxSide, "cells in a row");
  arguments.number("height", &out->plate.height, 2, kMaxSide, "rows");
  arguments.number("iterations", &out->iterations, 1, UINT64_MAX / 2, "at most so many");
  arguments.real("tolerance", &out->tolerance, 0, 100,
                 "end when no cell changes by more; 0: when none changes at all");
  arguments.seed(&out->plate.seed);
  arguments.choice("verify", &out->verify, {"none", "gpu", "cpu"},
                   "compare every bit with one GPU, or with one core of the CPU");
  arguments.flag("write-field", &out->write_field, "write temperature.bin too");
  arguments.flag("cpu", &out->cpu, "run the same steps on one core of the CPU");
  arguments.number("checkpoint-seconds", &out->checkpoint_seconds, 0, 1'000'000,
                   "between two checkpoints; 0: only when told to stop");
  return arguments.parse(argc, argv);
}

std::string encode_checkpoint(const Plate& plate, const State& state) {
  std::string out;
  out.reserve(kHeader + state.field.size() * sizeof(float));
  out = kMagic;
  put(out, kVersion);
  put(out, plate.width);
  put(out, plate.height);
  put(out, plate.seed);
  put(out, state.change);
  put(out, state.seconds);
  put(out, state.iterations);
  put(out, std::uint64_t{0});
  put(out, field_crc(state.field));
  put(out, crc32(out.data(), out.size()));
  append_field(out, state.field);
  return out;
}

std::string decode_checkpoint(const std::string& bytes, const Plate& plate, State* out) {
  if (bytes.size() < kHeader) return "it is cut off within its header";
  if (bytes.compare(0, 8, kMagic) != 0) return "it is a file of another kind";
  if (get<std::uint64_t>(bytes, 8) != kVersion) return "it is of another version of this program";
  if (get<std::uint32_t>(bytes, kHeader - 4) != crc32(bytes.data(), kHeader - 4)) {
    return "its header is damaged";
  }
  if (get<std::uint64_t>(bytes, 16) != plate.width ||
      get<std::uint64_t>(bytes, 24) != plate.height ||
      get<std::uint64_t>(bytes, 32) != plate.seed) {
    return "it is of another plate";
  }
  const std::uint64_t size = plate.cells() * sizeof(float);
  if (bytes.size() - kHeader != size) return "it is cut off or too long";
  if (crc32(bytes.data() + kHeader, size) != get<std::uint32_t>(bytes, kHeader - 8)) {
    return "it is damaged";
  }
  out->change = get<double>(bytes, 40);
  out->seconds = get<double>(bytes, 48);
  out->iterations = get<std::uint64_t>(bytes, 56);
  out->field.resize(plate.cells());
  std::memcpy(out->field.data(), bytes.data() + kHeader, size);
  return "";
}

void write_field(const std::string& path, const Plate& plate, const Field& field) {
  std::string header = kFieldMagic;
  put(header, plate.width);
  put(header, plate.height);
  put(header, std::uint64_t{field_crc(field)});
  FileWriter file(path);
  file.write(header);
  file.write(field.data(), field.size() * sizeof(float));
  file.done();
}

bool finished(const Options& options, const State& state) {
  return state.iterations >= options.iterations ||
         (state.iterations > 0 && state.change <= options.tolerance);
}

State iterate(const Options& options, Machine& machine, const Surroundings& around) {
  around.progress(0);
  State state = begin(options, around);
  machine.load(state.field);
  const double before = state.seconds, started = around.seconds();
  double saved = started;
  while (!finished(options, state)) {
    const bool stop = around.stop_requested();
    const auto period = static_cast<double>(options.checkpoint_seconds);
    if (stop || (period > 0 && around.seconds() - saved >= period)) {
      machine.store(state.field);
      saved = around.seconds();
      state.seconds = before + saved - started;
      around.save(encode_checkpoint(options.plate, state));
      if (stop) return state;
    }
    const std::uint64_t count =
        std::min(kLook - state.iterations % kLook, options.iterations - state.iterations);
    state.change = machine.run(count);
    state.iterations += count;
    around.progress(static_cast<double>(state.iterations) /
                    static_cast<double>(options.iterations));
  }
  state.seconds = before + around.seconds() - started;
  machine.store(state.field);
  return state;
}

}  // namespace samples::two_gpus
