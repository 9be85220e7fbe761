// coordinator_load: what a rank costs the coordinator alone. Many workers in this process, which
// start nothing, take a job's ranks; the coordinator's processor time is read from outside. Prints
// one line of JSON.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "bench/load/fake_workers.h"

namespace pesc::bench {
namespace {

struct Options {
  std::string address;
  int pid = 0;
  uint32_t workers = 100, cpus = 8, ranks = 1'000'000;
  uint64_t until = 0;  // ranks after which the rest is cancelled; 0: all
  double limit_s = 60;
  bool keep = false, progress = false;
};

// To see whether it goes on evenly.
kj::Promise<void> show_progress(rpc::Loop& loop, const FakeWorkers& workers, int pid, double from) {
  return loop.timer().afterDelay(250 * kj::MILLISECONDS).then([&loop, &workers, pid, from] {
    std::fprintf(stderr, "%.2f s: %llu ranks, %llu reports, coordinator %.2f s\n", now_s() - from,
                 static_cast<unsigned long long>(workers.acknowledged()),
                 static_cast<unsigned long long>(workers.reports()), cpu_s(pid));
    return show_progress(loop, workers, pid, from);
  });
}

int run(const Options& options) {
  raise_descriptor_limit();
  rpc::Loop loop;
  const auto user_join = credentials(options.address, rpc::Role::user);
  UserLogin user = loop.wait(log_in_user(loop, user_join));
  FakeWorkers workers(loop, credentials(options.address, rpc::Role::worker), options.workers,
                      options.cpus);
  const double begin = now_s();
  loop.wait(workers.attach());
  const double attached = now_s();

  // A small job first: statements are prepared and buffers have grown when the clock runs.
  loop.wait(submit(user.session, 2'000));
  loop.wait(workers.when(2'000));
  const uint64_t before = workers.acknowledged(), reports_before = workers.reports();

  const double cpu_begin = cpu_s(options.pid), own_begin = cpu_s(getpid()), started = now_s();
  if (options.progress) loop.detach(show_progress(loop, workers, options.pid, started));
  const uint64_t job = loop.wait(submit(user.session, options.ranks));
  const uint64_t wanted = options.until > 0 ? options.until : options.ranks;
  loop.wait(workers.when(before + wanted)
                .exclusiveJoin(loop.timer().afterDelay(
                    static_cast<int64_t>(options.limit_s * 1000) * kj::MILLISECONDS)));
  const double wall = now_s() - started, cpu = cpu_s(options.pid) - cpu_begin;
  const double own = cpu_s(getpid()) - own_begin;
  const uint64_t done = workers.acknowledged() - before;
  const uint64_t reports = workers.reports() - reports_before;
  if (done == 0) give_up("no rank was acknowledged");
  std::printf(
      "{\"workers\": %u, \"ranks\": %u, \"done\": %llu, \"wall_s\": %.4f, \"cpu_s\": %.4f, "
      "\"driver_cpu_s\": %.4f, \"attach_s\": %.3f, \"ranks_per_report\": %.2f}\n",
      options.workers, options.ranks, static_cast<unsigned long long>(done), wall, cpu, own,
      attached - begin,
      static_cast<double>(done) / static_cast<double>(std::max<uint64_t>(reports, 1)));
  std::fflush(stdout);
  if (done < options.ranks && !options.keep) {
    auto request = user.session.cancelRequest();
    request.setId(job);
    loop.wait(request.send().ignoreResult());
  }
  std::_Exit(0);  // thousands of sessions need not end in order
}

}  // namespace
}  // namespace pesc::bench

int main(int argc, char** argv) {
  pesc::bench::Options options;
  CLI::App app{"What a rank costs the coordinator alone"};
  app.add_option("--coordinator", options.address)->required();
  app.add_option("--pid", options.pid, "the coordinator's")->required();
  app.add_option("--workers", options.workers);
  app.add_option("--cpus", options.cpus, "of each worker");
  app.add_option("--ranks", options.ranks);
  app.add_option("--until", options.until, "ranks after which the rest is cancelled");
  app.add_option("--limit", options.limit_s, "seconds after which it is enough");
  app.add_flag("--progress", options.progress, "four times a second, to standard error");
  app.add_flag("--keep", options.keep, "do not cancel the rest");
  CLI11_PARSE(app, argc, argv);
  return pesc::bench::run(options);
}
