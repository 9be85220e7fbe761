// client_load: what clients see of a coordinator. Each mode prints one line of JSON.
//
//   submit   how long a submission takes until it is acknowledged, for a number of ranks
//   first    from a submission, and from posix_spawn, to the program's first instruction
//   gang     from the first to the last start of a gang's ranks, and of as many posix_spawns
//   clients  many at once, each submitting a job of one rank and asking for its status, in turn
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <vector>

#include "bench/load/fake_workers.h"
#include "bench/load/first_instruction.h"

namespace pesc::bench {
namespace {

struct Options {
  std::string address, program, fifo;
  int pid = 0, times = 20;
  uint32_t ranks = 1'000'000, clients = 25, workers = 4;
  double seconds = 3;
};

int time_submissions(rpc::Loop& loop, protocol::UserSession::Client session,
                     const Options& options) {
  std::vector<double> took;
  for (int i = 0; i < options.times + 3; ++i) {
    const double begin = now_s();
    const uint64_t id = loop.wait(submit(session, options.ranks));
    if (i >= 3) took.push_back((now_s() - begin) * 1000);
    auto cancel = session.cancelRequest();
    cancel.setId(id);
    loop.wait(cancel.send().ignoreResult());
  }
  std::sort(took.begin(), took.end());
  std::printf("{\"median_ms\": %.4f, \"max_ms\": %.4f}\n", took[took.size() / 2], took.back());
  return 0;
}

// One client: submits, asks, submits, until the time is over.
class Client {
 public:
  Client(rpc::Loop& loop, const rpc::JoinFile& join, uint64_t& calls)
      : loop_(loop), join_(join), calls_(calls) {}

  kj::Promise<void> connect() {
    return log_in_user(loop_, join_).then([this](UserLogin login) {
      connection_ = std::move(login.connection);
      session_ = kj::mv(login.session);
    });
  }

  kj::Promise<void> work(const bool& over) {
    if (over) return kj::READY_NOW;
    return submit(*session_, 1)
        .then([this](uint64_t id) {
          ++calls_;
          auto request = session_->statusRequest();
          request.setId(id);
          return request.send();
        })
        .then([this, &over](auto&& response) {
          if (response.getStatus().getRepetitions() != 1)
            give_up("a job is not as it was submitted");
          ++calls_;
          return work(over);
        });
  }

 private:
  rpc::Loop& loop_;
  const rpc::JoinFile& join_;
  uint64_t& calls_;
  std::unique_ptr<rpc::Connection> connection_;
  std::optional<protocol::UserSession::Client> session_;
};

kj::Promise<void> connect_from(std::vector<std::unique_ptr<Client>>& clients, size_t& next) {
  if (next >= clients.size()) return kj::READY_NOW;
  return clients[next++]->connect().then([&clients, &next] { return connect_from(clients, next); });
}

int many_clients(rpc::Loop& loop, const Options& options) {
  const auto join = credentials(options.address, rpc::Role::user);
  FakeWorkers workers(loop, credentials(options.address, rpc::Role::worker), options.workers, 64);
  loop.wait(workers.attach());
  uint64_t calls = 0;
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < options.clients; ++i) {
    clients.push_back(std::make_unique<Client>(loop, join, calls));
  }
  size_t next = 0;
  auto connecting = kj::heapArrayBuilder<kj::Promise<void>>(32);
  for (int i = 0; i < 32; ++i) connecting.add(connect_from(clients, next));
  loop.wait(kj::joinPromises(connecting.finish()));

  bool over = false;
  auto working = kj::heapArrayBuilder<kj::Promise<void>>(clients.size());
  for (auto& client : clients) working.add(client->work(over));
  auto all = kj::joinPromises(working.finish());
  const auto wait = [&](double seconds) {
    loop.wait(loop.timer().afterDelay(static_cast<int64_t>(seconds * 1000) * kj::MILLISECONDS));
  };
  wait(options.seconds / 4);  // until all of them are at work
  const uint64_t before = calls;
  const double begin = now_s(), cpu_begin = cpu_s(options.pid);
  wait(options.seconds);
  const double wall = now_s() - begin, cpu = cpu_s(options.pid) - cpu_begin;
  const uint64_t made = calls - before;
  over = true;
  loop.wait(kj::mv(all));
  std::printf("{\"clients\": %u, \"calls\": %llu, \"wall_s\": %.4f, \"cpu_s\": %.4f}\n",
              options.clients, static_cast<unsigned long long>(made), wall, cpu);
  std::fflush(stdout);
  std::string line;
  char c;
  while (std::fread(&c, 1, 1, stdin) == 1 && c != '\n') line += c;  // somebody looks at memory
  std::_Exit(0);
}

}  // namespace
}  // namespace pesc::bench

int main(int argc, char** argv) {
  using namespace pesc::bench;
  Options options;
  CLI::App app{"What clients see of a coordinator"};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--coordinator", options.address)->required();
  app.add_option("--pid", options.pid, "the coordinator's");
  auto* submits = app.add_subcommand("submit");
  submits->add_option("--ranks", options.ranks);
  submits->add_option("--times", options.times);
  auto* first = app.add_subcommand("first");
  first->add_option("--program", options.program)->required();
  first->add_option("--fifo", options.fifo)->required();
  first->add_option("--times", options.times);
  auto* gang = app.add_subcommand("gang");
  gang->add_option("--program", options.program)->required();
  gang->add_option("--fifo", options.fifo)->required();
  gang->add_option("--times", options.times);
  gang->add_option("--ranks", options.ranks);
  auto* clients = app.add_subcommand("clients");
  clients->add_option("--clients", options.clients);
  clients->add_option("--seconds", options.seconds);
  clients->add_option("--workers", options.workers);
  CLI11_PARSE(app, argc, argv);

  raise_descriptor_limit();
  pesc::rpc::Loop loop;
  if (clients->parsed()) return many_clients(loop, options);
  const auto join = credentials(options.address, pesc::rpc::Role::user);
  UserLogin user = loop.wait(log_in_user(loop, join));
  if (submits->parsed()) return time_submissions(loop, user.session, options);
  if (gang->parsed()) {
    return gang_starts(loop, user.session, options.program, options.fifo, options.ranks,
                       options.times);
  }
  return first_instruction(loop, user.session, options.program, options.fifo, options.times);
}
