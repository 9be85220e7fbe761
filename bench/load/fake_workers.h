// Workers that speak the real protocol and start nothing: what they are leased they report as
// succeeded at once. So that all there is to measure is the coordinator.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "bench/load/sessions.h"
#include "model/ids.h"

namespace pesc::bench {

class FakeWorker;

class FakeWorkers {
 public:
  FakeWorkers(rpc::Loop& loop, rpc::JoinFile join, uint32_t count, uint32_t cpus);
  ~FakeWorkers();

  // Returns when all are attached; some at a time, as a lab's do.
  kj::Promise<void> attach();
  // Resolves when as many ranks have been acknowledged, from the beginning on.
  kj::Promise<void> when(uint64_t acknowledged);
  uint64_t acknowledged() const { return acknowledged_; }
  uint64_t reports() const { return reports_; }

 private:
  friend class FakeWorker;
  kj::Promise<void> attach_next();
  kj::Promise<void> beat();
  void count(uint64_t acknowledged);

  rpc::Loop& loop_;
  const rpc::JoinFile join_;
  const uint32_t cpus_;
  uint32_t next_ = 0;
  uint64_t heartbeat_ms_ = 5'000, acknowledged_ = 0, reports_ = 0, awaited_ = UINT64_MAX;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  kj::Own<kj::PromiseFulfiller<void>> fulfiller_;
  kj::Promise<void> beating_ = nullptr;
};

}  // namespace pesc::bench
