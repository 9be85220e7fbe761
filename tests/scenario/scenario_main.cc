// Plays a script against the coordinator's core, and compares what it answers with what the script
// says. A script is a text: comments (#), commands (> …), and below each command the records and
// actions that come of it. With PESC_UPDATE_SCENARIOS set the answers are written anew, to be read
// in the diff.
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/coordinator/core/core.h"
#include "tests/sim/trace_text.h"

namespace pesc::scenario {
namespace {

namespace co = coordinator;
using Words = std::vector<std::string>;

Words split(const std::string& text, char by) {
  Words words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, by);) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

// "key=value" among the words, or a bare key; `otherwise` when it is not there.
std::string value_of(const Words& words, const std::string& key, const std::string& otherwise) {
  for (const std::string& word : words) {
    if (word == key) return "1";
    if (word.starts_with(key + "=")) return word.substr(key.size() + 1);
  }
  return otherwise;
}

uint64_t number_of(const Words& words, const std::string& key, uint64_t otherwise) {
  return std::stoull(value_of(words, key, std::to_string(otherwise)));
}

// "1/0/2": job 1, rank 0, attempt 2.
AttemptKey key_of(const std::string& text) {
  const Words parts = split(text, '/');
  return {{std::stoull(parts.at(0))},
          static_cast<uint32_t>(std::stoul(parts.at(1))),
          static_cast<uint32_t>(std::stoul(parts.at(2)))};
}

struct Worker {
  uint64_t id = 0, session = 0, last_update = 0;
  uint32_t cpus_milli = 0;
  std::set<AttemptKey> holding;
};

class Player {
 public:
  Player() : core_(std::make_unique<co::Core>(config_)) { core_->finish_restore(now_); }

  // The lines that come of one command.
  std::string play(const std::string& command) {
    out_.clear();
    const Words words = split(command, ' ');
    const std::string& verb = words.at(0);
    if (verb == "wait") {
      wait(std::stoll(words.at(1)));
    } else if (verb == "why") {
      why(JobId{std::stoull(words.at(1))});
    } else if (verb == "job") {
      step(submit(words));
    } else if (verb == "cancel") {
      step(co::JobCancelled{1, JobId{std::stoull(words.at(1))}, now_});
    } else if (verb == "drain" || verb == "undrain") {
      step(co::WorkerDrained{1, words.at(1), verb == "drain"});
    } else if (verb == "pause" || verb == "resume") {
      step(co::WorkerPaused{1, words.at(1), verb == "pause"});
    } else if (verb == "restart") {
      restart();
    } else {
      play_worker(verb, words);
    }
    return out_;
  }

 private:
  void play_worker(const std::string& verb, const Words& words) {
    Worker& worker = workers_[words.at(1)];
    if (verb == "attach") {
      if (worker.id == 0) worker.id = workers_.size();
      if (value_of(words, "holding", "") == "none") worker.holding.clear();
      worker.cpus_milli = static_cast<uint32_t>(number_of(words, "cpus", 1'000));
      worker.session = ++last_session_;
      worker.last_update = 0;
      co::WorkerInfo info{
          .id = {worker.id}, .name = words.at(1), .advertise = words.at(1) + ".lab"};
      info.cpus_milli = worker.cpus_milli;
      step(co::WorkerAttached{
          1, worker.session, info, {worker.holding.begin(), worker.holding.end()}, now_});
    } else if (verb == "detach") {
      step(co::WorkerDetached{worker.session});
    } else if (verb == "offer") {
      const BlobRef manifest{sha256(words.at(3)), 1};
      step(co::CheckpointOffered{1, worker.session, key_of(words.at(2)), manifest,
                                 std::make_shared<const std::vector<BlobRef>>(),
                                 number_of(words, "saved", 1'000), now_});
    } else if (verb == "report") {
      report(worker, words);
    } else {
      out_ += "no such command: " + verb + "\n";
    }
  }

  void report(Worker& worker, const Words& words) {
    co::WorkerReported event{.request = 1, .session = worker.session};
    event.holding.assign(worker.holding.begin(), worker.holding.end());
    event.last_update = worker.last_update;
    event.unix_ms = now_;
    event.busy = value_of(words, "busy", "");
    for (const std::string& one : split(value_of(words, "finished", ""), ',')) {
      const Words parts = split(one, ':');
      AttemptOutcome outcome;
      outcome.reason = parse_end_reason(parts.at(1)).value();
      outcome.duration_ms = parts.size() > 2 ? std::stoull(parts[2]) : 10'000;
      outcome.exit_code = outcome.reason == EndReason::exit_code ? 1 : 0;
      event.finished.push_back({key_of(parts[0]), outcome});
    }
    for (const std::string& one : split(value_of(words, "ready", ""), ',')) {
      const Words parts = split(one, ':');
      event.ready.push_back(
          {key_of(parts[0]), static_cast<uint16_t>(parts.size() > 1 ? std::stoul(parts[1]) : 0)});
    }
    reporter_ = &worker;
    step(event);
    reporter_ = nullptr;
  }

  co::JobSubmitted submit(const Words& words) const {
    auto spec = std::make_shared<JobSpec>();
    spec->program = "/bin/program";
    spec->repetitions = static_cast<uint32_t>(number_of(words, "ranks", 1));
    spec->resources.cpus_milli = static_cast<uint32_t>(number_of(words, "cpus", 1'000));
    spec->retries = static_cast<uint32_t>(number_of(words, "retries", 0));
    spec->parallel = value_of(words, "parallel", "") == "1";
    spec->max_failures = static_cast<uint32_t>(number_of(words, "max_failures", 0));
    spec->job_time_limit_ms = number_of(words, "time_limit", 0);
    return {1, JobId{std::stoull(words.at(1))}, "user", spec, now_};
  }

  void step(const co::Event& event) {
    take(core_->step(event, now_));
    settle();
  }

  // Whatever is due now.
  void settle() {
    for (int i = 0; i < 100; ++i) {
      const auto deadline = core_->next_deadline();
      if (!deadline || *deadline > now_) return;
      take(core_->step(co::TimerFired{now_}, now_));
    }
  }

  void wait(int64_t ms) {
    const int64_t until = now_ + ms;
    while (true) {
      const auto deadline = core_->next_deadline();
      if (!deadline || *deadline > until) break;
      now_ = std::max(now_, *deadline);
      const size_t before = out_.size();
      take(core_->step(co::TimerFired{now_}, now_));
      if (out_.size() > before) {
        out_.insert(before, fmt::format("  at {:.3f} s\n", static_cast<double>(now_) / 1e3));
      }
      settle();
    }
    now_ = until;
  }

  void take(const co::Step& step) {
    for (const co::Record& record : step.records) {
      out_ += "  record " + sim::text_of(record) + "\n";
      records_.push_back(record);
    }
    for (const co::Action& action : step.actions) {
      if (std::holds_alternative<co::JobChanged>(action)) continue;
      out_ += "  -> " + sim::text_of(action) + "\n";
      note(action);
    }
  }

  // What the worker knows by then.
  void note(const co::Action& action) {
    if (const auto* update = std::get_if<co::SendUpdate>(&action)) {
      for (auto& [name, worker] : workers_) {
        if (worker.session != update->session) continue;
        worker.last_update = update->number;
        for (const auto& lease : update->leases) worker.holding.insert(lease.key);
      }
    } else if (const auto* answer = std::get_if<co::AnswerReport>(&action)) {
      if (reporter_ == nullptr) return;
      for (const AttemptKey& key : answer->acknowledged) reporter_->holding.erase(key);
    }
  }

  void restart() {
    core_ = std::make_unique<co::Core>(config_);
    for (const co::Record& record : records_) core_->apply(record);
    core_->finish_restore(now_);
    settle();
  }

  void why(JobId id) {
    for (const auto& line : core_->why(id, now_)) {
      out_ +=
          fmt::format("  {} {}: {}\n", line.count == 1 ? "rank" : "ranks", line.ranks, line.reason);
    }
    const auto view = core_->job(id);
    if (!view) return;
    out_ += fmt::format("  job {}: {}, {} waiting, {} running, {} succeeded, {} failed{}\n",
                        id.value, to_string(view->state), view->counts.waiting,
                        view->counts.running, view->counts.succeeded, view->counts.failed,
                        view->detail.empty() ? "" : ": " + view->detail);
  }

  co::CoreConfig config_{.lease_ms = 30'000, .heartbeat_ms = 5'000};
  int64_t now_ = 0;
  std::unique_ptr<co::Core> core_;
  std::vector<co::Record> records_;
  std::map<std::string, Worker> workers_;
  Worker* reporter_ = nullptr;
  uint64_t last_session_ = 0;
  std::string out_;
};

// The script with the answers that come today.
std::string play_all(std::istream& script) {
  Player player;
  std::string text;
  for (std::string line; std::getline(script, line);) {
    if (line.starts_with("> ")) {
      text += line + "\n" + player.play(line.substr(2));
    } else if (line.empty() || line.starts_with("#")) {
      text += line + "\n";
    }
  }
  return text;
}

void print_first_difference(const std::string& expected, const std::string& found) {
  std::istringstream a(expected), b(found);
  std::string want, got;
  for (int number = 1;; ++number) {
    const bool more_a = static_cast<bool>(std::getline(a, want));
    const bool more_b = static_cast<bool>(std::getline(b, got));
    if (more_a && more_b && want == got) continue;
    fmt::print("line {}:\n  expected: {}\n  found:    {}\n", number, more_a ? want : "(the end)",
               more_b ? got : "(the end)");
    return;
  }
}

int run(const char* path) {
  std::ifstream file(path);
  if (!file) {
    fmt::print(stderr, "cannot read {}\n", path);
    return 2;
  }
  std::stringstream script;
  script << file.rdbuf();
  const std::string expected = script.str();
  const std::string found = play_all(script);
  if (found == expected) return 0;
  if (std::getenv("PESC_UPDATE_SCENARIOS") != nullptr) {
    std::ofstream(path) << found;
    fmt::print("{} is written anew\n", path);
    return 0;
  }
  print_first_difference(expected, found);
  fmt::print("\n{}\nIf that is right: PESC_UPDATE_SCENARIOS=1, run again, and read the diff\n",
             found);
  return 1;
}

}  // namespace
}  // namespace pesc::scenario

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: pesc_scenario SCRIPT\n");
    return 2;
  }
  return pesc::scenario::run(argv[1]);
}
