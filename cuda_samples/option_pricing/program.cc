#include "option_pricing/program.h"

#include <glob.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/failure.h"
#include "common/files.h"
#include "common/json.h"
#include "common/stop.h"
#include "common/surroundings.h"
#include "common/text.h"
#include "option_pricing/price.h"
#include "pesc/rank.h"

namespace samples::option_pricing {
namespace {

constexpr char kProgram[] = "option_pricing", kCheckpoint[] = "option_pricing.checkpoint";

std::vector<std::string> matching(const std::string& pattern) {
  std::vector<std::string> out;
  glob_t found = {};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    out.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  globfree(&found);
  return out;
}

int merge(const std::string& directory) {
  std::vector<Record> records;
  for (const std::string& path : matching(directory + "/rank-*/estimate.txt")) {
    Record record;
    const std::string trouble = decode(read_file(path), &record);
    if (!trouble.empty()) throw Failure(kFailed, path + ": " + trouble);
    records.push_back(record);
  }
  if (records.empty()) {
    throw Failure(kUsage, "--merge: there is no " + directory +
                              "/rank-*/estimate.txt; name the directory that pesc run -o wrote");
  }
  std::string trouble;
  const Estimate all = merge_ranks(records, &trouble);
  if (!trouble.empty()) throw Failure(kFailed, "--merge: " + trouble);
  std::printf("%zu ranks, %s paths: price %.9g, standard error %.3g\n%s\n", records.size(),
              grouped(all.paths).c_str(), all.mean, all.standard_error(),
              records[0].contract.c_str());
  return kSuccess;
}

void write_results(const std::string& directory, const Options& options, const Record& record,
                   const std::string& device) {
  const Estimate& estimate = record.estimate;
  const double rate = record.seconds > 0 ? static_cast<double>(record.paths) / record.seconds : 0;
  write_file(directory + "/estimate.txt", encode(record));
  JsonObject json;
  json.add("program", kProgram)
      .add("device", device)
      .add("contract", record.contract)
      .add("rank", std::uint64_t{record.stream.rank})
      .add("seed", std::to_string(record.stream.seed))
      .add("paths", record.paths)
      .add("price", estimate.mean)
      .add("standard_error", estimate.standard_error());
  if (!options.contract.asian) json.add("exact_price", black_scholes(options.contract));
  json.add("seconds", record.seconds).add("paths_per_second", rate).add("verified", options.verify);
  write_file(directory + "/result.json", json.done());
  (void)pesc_metric("price", estimate.mean);
  std::printf("rank %u: %s paths: price %.9g, standard error %.3g, %.3f s, %.3g paths/s%s, %s\n",
              record.stream.rank, grouped(record.paths).c_str(), estimate.mean,
              estimate.standard_error(), record.seconds, rate, options.verify ? ", verified" : "",
              device.c_str());
}

int run(int argc, char** argv, const MachineFactory& on_gpu) {
  Options options;
  if (!parse_options(argc, argv, &options)) return kSuccess;
  if (!options.merge.empty()) return merge(options.merge);
  const std::string directory = output_directory();
  watch_for_stop();
  const Model model = prepare(options.contract, options.stream);
  const std::unique_ptr<Machine> machine = options.cpu
                                               ? std::make_unique<Emulation>(model, options.paths)
                                               : on_gpu(model, options.paths);
  const Record record = price(options, *machine, real_surroundings(kProgram, kCheckpoint, "paths"));
  if (record.estimate.paths != record.paths) end_as_asked();
  obey_stop();
  if (options.verify) {
    const std::string trouble = check(options, *machine, record.estimate);
    if (!trouble.empty()) throw Failure(kVerifyFailed, "--verify: " + trouble);
  }
  write_results(directory, options, record, machine->device());
  forget_checkpoint(kCheckpoint);
  (void)pesc_progress(1, "done");
  return kSuccess;
}

}  // namespace

int run_program(int argc, char** argv, const MachineFactory& on_gpu) {
  return guarded(kProgram, [&] { return run(argc, argv, on_gpu); });
}

}  // namespace samples::option_pricing
