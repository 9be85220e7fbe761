#include "bench/load/first_instruction.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "protocol/codec.h"

namespace pesc::bench {
namespace {

constexpr int kPauseMs = 30;  // the cluster is idle again

double read_start(int fifo) {
  pollfd wait{fifo, POLLIN, 0};
  double at = 0;
  if (poll(&wait, 1, 60'000) != 1 || read(fifo, &at, sizeof at) != sizeof at) {
    give_up("the program did not start within 60 s");
  }
  return at;
}

pid_t spawn(const std::string& program, const std::string& path) {
  char* arguments[] = {const_cast<char*>(program.c_str()), const_cast<char*>(path.c_str()),
                       nullptr};
  char* environment[] = {nullptr};
  pid_t pid = 0;
  if (posix_spawn(&pid, program.c_str(), nullptr, nullptr, arguments, environment) != 0) {
    give_up("cannot start " + program);
  }
  return pid;
}

uint64_t submit_program(rpc::Loop& loop, protocol::UserSession::Client& session,
                        const std::string& program, const std::string& path, uint32_t gang) {
  JobSpec job;
  job.name = "first";
  job.program = program;
  job.arguments = {path};
  job.inject = Inject::none;
  job.output_limit_bytes = kDefaultOutputLimitBytes;
  if (gang > 0) {
    job.repetitions = gang;
    job.parallel = true;
  }
  auto request = session.submitRequest();
  const uint64_t id = new_job_id();
  request.setId(id);
  protocol::encode(request.initSpec(), job);
  loop.wait(request.send().ignoreResult());
  return id;
}

void wait_for_end(rpc::Loop& loop, protocol::UserSession::Client& session, uint64_t id) {
  auto follow = session.followRequest();
  follow.setId(id);
  follow.setRevision(protocol::NO_REVISION);
  follow.setCommitted(UINT32_MAX);
  follow.setMaxWaitMs(20'000);
  auto answer = loop.wait(follow.send());
  const auto status = answer.getStatus();
  if (status.getSucceeded() != status.getRepetitions()) give_up("a job did not succeed");
}

// Milliseconds from the first to the last of so many starts.
double spread_of(int fifo, uint32_t starts) {
  std::vector<double> at;
  for (uint32_t i = 0; i < starts; ++i) at.push_back(read_start(fifo));
  const auto [first, last] = std::minmax_element(at.begin(), at.end());
  return (*last - *first) * 1000;
}

// Whoever the ranks run as may write to it.
int open_fifo(const std::string& path) {
  if (mkfifo(path.c_str(), 0666) != 0 || chmod(path.c_str(), 0666) != 0) {
    give_up("cannot make " + path);
  }
  const int fifo = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fifo < 0) give_up("cannot open " + path);
  return fifo;
}

void print_list(const char* name, const std::vector<double>& values) {
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < values.size(); ++i) std::printf("%s%.4f", i > 0 ? ", " : "", values[i]);
  std::printf("]");
}

void print(const std::vector<double>& ours, const std::vector<double>& bare) {
  std::printf("{");
  print_list("submitted", ours);
  std::printf(", ");
  print_list("spawned", bare);
  std::printf("}\n");
}

}  // namespace

int first_instruction(rpc::Loop& loop, protocol::UserSession::Client session,
                      const std::string& program, const std::string& path, int times) {
  const int fifo = open_fifo(path);
  std::vector<double> ours, bare;
  for (int i = 0; i < times + 5; ++i) {  // the first five are not counted
    double begin = now_s();
    const uint64_t id = submit_program(loop, session, program, path, 0);
    const double submitted = read_start(fifo) - begin;
    wait_for_end(loop, session, id);
    loop.wait(loop.timer().afterDelay(kPauseMs * kj::MILLISECONDS));
    begin = now_s();
    const pid_t pid = spawn(program, path);
    const double spawned = read_start(fifo) - begin;
    waitpid(pid, nullptr, 0);
    if (i < 5) continue;
    ours.push_back(submitted * 1000);
    bare.push_back(spawned * 1000);
  }
  print(ours, bare);
  return 0;
}

int gang_starts(rpc::Loop& loop, protocol::UserSession::Client session, const std::string& program,
                const std::string& path, uint32_t ranks, int times) {
  const int fifo = open_fifo(path);
  std::vector<double> ours, bare;
  for (int i = 0; i < times; ++i) {
    const uint64_t id = submit_program(loop, session, program, path, ranks);
    ours.push_back(spread_of(fifo, ranks));
    wait_for_end(loop, session, id);
    std::vector<pid_t> pids;
    for (uint32_t rank = 0; rank < ranks; ++rank) pids.push_back(spawn(program, path));
    bare.push_back(spread_of(fifo, ranks));
    for (const pid_t pid : pids) waitpid(pid, nullptr, 0);
  }
  print(ours, bare);
  return 0;
}

}  // namespace pesc::bench
