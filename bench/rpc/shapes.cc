#include "shapes.h"

#include <kj/debug.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

namespace pesc::bench {
namespace {

constexpr uint64_t kInFlight = 64;
constexpr unsigned kGathered = 512;  // in one call, as a worker's reports (worker/core/reports.cc)
constexpr kj::byte kPayload[kPayloadBytes] = {1, 2, 3};

capnp::Data::Reader payload() { return {kPayload, sizeof kPayload}; }

class CountingSink final : public shapes::Sink::Server {
 public:
  explicit CountingSink(std::shared_ptr<uint64_t> count) : count_(std::move(count)) {}
  kj::Promise<void> write(WriteContext context) override {
    KJ_REQUIRE(context.getParams().getData().size() == kPayloadBytes);
    ++*count_;
    return kj::READY_NOW;
  }
  kj::Promise<void> writeMany(WriteManyContext context) override {
    for (const auto item : context.getParams().getItems()) {
      KJ_REQUIRE(item.size() == kPayloadBytes);
      ++*count_;
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> finish(FinishContext context) override {
    context.getResults().setCount(*count_);
    return kj::READY_NOW;
  }

 private:
  std::shared_ptr<uint64_t> count_;
};

// A promise per message; the library says when the next one may go.
kj::Promise<void> write_all(shapes::Sink::Client sink, uint64_t left) {
  if (left == 0) return kj::READY_NOW;
  auto request = sink.writeRequest();
  request.setData(payload());
  return request.send().then([sink, left]() mutable { return write_all(kj::mv(sink), left - 1); });
}

// As PESC's own streams go (reports, updates, small blobs): what is there to be sent goes as a
// list.
kj::Promise<void> write_gathered(shapes::Sink::Client sink, uint64_t left) {
  if (left == 0) return kj::READY_NOW;
  const auto count = static_cast<unsigned>(std::min<uint64_t>(left, kGathered));
  auto request = sink.writeManyRequest();
  auto items = request.initItems(count);
  for (unsigned i = 0; i < count; ++i) items.set(i, payload());
  return request.send().then(
      [sink, left, count]() mutable { return write_gathered(kj::mv(sink), left - count); });
}

kj::Promise<void> write(shapes::Sink::Client sink, uint64_t count, bool gathered) {
  return gathered ? write_gathered(kj::mv(sink), count) : write_all(kj::mv(sink), count);
}

class ShapesServer final : public shapes::Shapes::Server {
 public:
  kj::Promise<void> echo(EchoContext context) override {
    context.getResults().setData(context.getParams().getData());
    return kj::READY_NOW;
  }
  kj::Promise<void> pull(PullContext context) override {
    auto sink = context.getParams().getSink();
    const uint64_t count = context.getParams().getCount();
    const bool gathered = context.getParams().getGathered();
    context.releaseParams();
    return write(sink, count, gathered).then([sink]() mutable {
      return sink.finishRequest().send().ignoreResult();
    });
  }
  kj::Promise<void> push(PushContext context) override {
    context.getResults().setSink(kj::heap<CountingSink>(std::make_shared<uint64_t>(0)));
    return kj::READY_NOW;
  }
};

kj::Promise<void> echo_on(shapes::Shapes::Client server, std::shared_ptr<uint64_t> left) {
  if (*left == 0) return kj::READY_NOW;
  --*left;
  auto request = server.echoRequest();
  request.setData(payload());
  return request.send().then([server, left](auto&& response) mutable {
    KJ_REQUIRE(response.getData().size() == kPayloadBytes);
    return echo_on(kj::mv(server), left);
  });
}

kj::Promise<void> unary(shapes::Shapes::Client server, uint64_t count, uint64_t in_flight) {
  auto left = std::make_shared<uint64_t>(count);
  auto chains = kj::heapArrayBuilder<kj::Promise<void>>(in_flight);
  for (uint64_t i = 0; i < in_flight; ++i) chains.add(echo_on(server, left));
  return kj::joinPromises(chains.finish());
}

}  // namespace

shapes::Shapes::Client make_shapes() { return kj::heap<ShapesServer>(); }

kj::Promise<void> call_shape(shapes::Shapes::Client server, std::string shape, uint64_t count) {
  if (shape == "unary") return unary(server, count, 1);
  if (shape == "unary64") return unary(server, count, kInFlight);
  const std::string gathered_suffix = "_gathered";
  const bool gathered = shape.ends_with(gathered_suffix);
  if (gathered) shape.resize(shape.size() - gathered_suffix.size());
  if (shape == "server_stream") {
    auto seen = std::make_shared<uint64_t>(0);
    auto request = server.pullRequest();
    request.setCount(count);
    request.setSizeBytes(kPayloadBytes);
    request.setGathered(gathered);
    request.setSink(kj::heap<CountingSink>(seen));
    return request.send().then([seen, count](auto&&) { KJ_REQUIRE(*seen == count); });
  }
  KJ_REQUIRE(shape == "client_stream", "no such shape");
  return server.pushRequest().send().then([count, gathered](auto&& response) {
    auto sink = response.getSink();
    return write(sink, count, gathered)
        .then([sink]() mutable { return sink.finishRequest().send(); })
        .then([count](auto&& counted) { KJ_REQUIRE(counted.getCount() == count); });
  });
}

double shapes_now_s() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

void print_rate(uint64_t count, double seconds) {
  std::printf("%.1f\n", static_cast<double>(count) / seconds);
  std::fflush(stdout);
}

}  // namespace pesc::bench
