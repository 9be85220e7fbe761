#include "two_gpus/program.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "common/crc32.h"
#include "common/failure.h"
#include "common/files.h"
#include "common/json.h"
#include "common/stop.h"
#include "common/surroundings.h"
#include "common/text.h"
#include "pesc/rank.h"
#include "two_gpus/iterate.h"

namespace samples::two_gpus {
namespace {

constexpr char kProgram[] = "two_gpus", kCheckpoint[] = "two_gpus.checkpoint";

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// All again, undivided.
void verify(const Options& options, const State& state, const MachineFactory& on_gpus) {
  (void)pesc_progress(1, "comparing");
  const std::unique_ptr<Machine> one = options.verify == "cpu" || options.cpu
                                           ? std::make_unique<Emulation>(options.plate, 1)
                                           : on_gpus(options.plate, 1);
  one->load(initial_field(options.plate));
  (void)one->run(state.iterations);
  Field field;
  one->store(field);
  for (std::uint64_t at = 0; at < field.size(); ++at) {
    if (bits_of(field[at]) == bits_of(state.field[at])) continue;
    const std::uint64_t stride = options.plate.stride();
    throw Failure(
        kVerifyFailed,
        text("--verify: row %llu, column %llu is %.9g, and %.9g when it is not divided; a "
             "GPU or a link between GPUs that errs, or a bug",
             static_cast<unsigned long long>(at / stride),
             static_cast<unsigned long long>(at % stride), state.field[at], field[at]));
  }
}

void write_results(const std::string& directory, const Options& options, const State& state,
                   const std::string& device) {
  const Plate& plate = options.plate;
  const double updates = static_cast<double>(plate.width) * static_cast<double>(plate.height) *
                         static_cast<double>(state.iterations);
  const double rate = state.seconds > 0 ? updates / state.seconds : 0;
  const std::uint32_t crc = crc32(state.field.data(), state.field.size() * sizeof(float));
  if (options.write_field) write_field(directory + "/temperature.bin", plate, state.field);
  write_file(directory + "/summary.json", JsonObject()
                                              .add("program", kProgram)
                                              .add("device", device)
                                              .add("rank", static_cast<std::uint64_t>(pesc_rank()))
                                              .add("seed", std::to_string(plate.seed))
                                              .add("width", plate.width)
                                              .add("height", plate.height)
                                              .add("iterations", state.iterations)
                                              .add("largest_change", state.change)
                                              .add("seconds", state.seconds)
                                              .add("cells_per_second", rate)
                                              .add("checksum", text("%08x", crc))
                                              .add("verified", options.verify)
                                              .done());
  (void)pesc_metric("cells_per_second", rate);
  std::printf(
      "rank %d: %llu iterations, largest change %.3g, %.3f s, %.3g cells/s, checksum %08x, "
      "%s\n",
      pesc_rank(), static_cast<unsigned long long>(state.iterations), state.change, state.seconds,
      rate, crc, device.c_str());
}

int run(int argc, char** argv, const MachineFactory& on_gpus) {
  Options options;
  if (!parse_options(argc, argv, &options)) return kSuccess;
  if (options.cpu && options.verify == "gpu") {
    throw Failure(kUsage, "--verify gpu needs GPUs, and --cpu uses none; try --verify cpu");
  }
  const std::string directory = output_directory();
  watch_for_stop();
  std::unique_ptr<Machine> machine =
      options.cpu ? std::make_unique<Emulation>(options.plate, 2) : on_gpus(options.plate, 2);
  const State state =
      iterate(options, *machine, real_surroundings(kProgram, kCheckpoint, "iterating"));
  if (!finished(options, state)) end_as_asked();
  obey_stop();
  const std::string device = machine->device();
  machine.reset();  // the comparison may need its memory
  if (options.verify != "none") verify(options, state, on_gpus);
  write_results(directory, options, state, device);
  forget_checkpoint(kCheckpoint);
  (void)pesc_progress(1, "done");
  return kSuccess;
}

}  // namespace

int run_program(int argc, char** argv, const MachineFactory& on_gpus) {
  return guarded(kProgram, [&] { return run(argc, argv, on_gpus); });
}

}  // namespace samples::two_gpus
