#include "bench/load/sessions.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "protocol/codec.h"

namespace pesc::bench {

void give_up(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::_Exit(1);
}

rpc::JoinFile credentials(const std::string& address, rpc::Role role) {
  auto found = rpc::find_coordinator(address, role);
  if (!found.ok()) give_up(std::string(found.status().message()));
  if (!*found) give_up("no coordinator is known at " + address);
  return **found;
}

namespace {

// By hand, and one at a time: rpc::connect() first looks in the kernel's table of sockets whose
// process answers, which takes milliseconds of this process for each of thousands of connections.
std::unique_ptr<rpc::Connection> dial(rpc::Loop& loop, const rpc::JoinFile& join) {
  auto address = rpc::parse_address(join.address);
  if (!address.ok() || !join.certificate_pem.empty()) give_up("the coordinator is not on loopback");
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(address->port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  protocol::Preamble ours = protocol::make_preamble(), theirs{};
  const auto size = static_cast<ssize_t>(ours.size());
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 ||
      write(fd, ours.data(), ours.size()) != size ||
      recv(fd, theirs.data(), theirs.size(), MSG_WAITALL) != size) {
    give_up("cannot connect to " + join.address);
  }
  const absl::Status status = protocol::check_preamble(theirs);
  if (!status.ok()) give_up(std::string(status.message()));
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return rpc::adopt(loop, fd, nullptr);
}

auto login_request(rpc::Connection& connection, const rpc::JoinFile& join) {
  auto request = connection.bootstrap().castAs<protocol::Front>().loginRequest();
  request.setToken(join.token);
  request.setSoftware("bench");
  return request;
}

}  // namespace

kj::Promise<UserLogin> log_in_user(rpc::Loop& loop, const rpc::JoinFile& join) {
  auto connection = dial(loop, join);
  auto request = login_request(*connection, join);
  return request.send().then([connection = std::move(connection)](auto&& response) mutable {
    return UserLogin{std::move(connection), response.getUser()};
  });
}

kj::Promise<WorkerLogin> log_in_worker(rpc::Loop& loop, const rpc::JoinFile& join) {
  auto connection = dial(loop, join);
  auto request = login_request(*connection, join);
  return request.send().then([connection = std::move(connection)](auto&& response) mutable {
    return WorkerLogin{std::move(connection), response.getWorker()};
  });
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

double now_s() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

double cpu_s(int of_pid) {
  clockid_t clock;
  timespec used{};
  if (of_pid <= 0 || clock_getcpuclockid(of_pid, &clock) != 0 || clock_gettime(clock, &used) != 0) {
    return 0;
  }
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

uint64_t new_job_id() {
  static std::mt19937_64 random{std::random_device()()};
  constexpr int64_t kFrom2020 = 1'577'836'800;
  return static_cast<uint64_t>(time(nullptr) - kFrom2020) << 32 | (random() & 0xffffffff);
}

void fill_spec(protocol::JobSpec::Builder spec, uint32_t repetitions) {
  JobSpec job;
  job.name = "bench";
  job.program = "/bin/true";
  job.inject = Inject::none;
  job.repetitions = repetitions;
  job.output_limit_bytes = kDefaultOutputLimitBytes;
  job.second_attempts = false;
  protocol::encode(spec, job);
}

kj::Promise<uint64_t> submit(protocol::UserSession::Client session, uint32_t repetitions) {
  const uint64_t id = new_job_id();
  auto request = session.submitRequest();
  request.setId(id);
  fill_spec(request.initSpec(), repetitions);
  return request.send().then([id](auto&&) { return id; });
}

}  // namespace pesc::bench
