// Blobs from worker to worker, over real connections of the loopback interface; the coordinator is
// a fake that gives as much as a test lets it.
#include "runtime/worker/shell/pass_on.h"

#include <gtest/gtest.h>
#include <kj/async.h>

#include <algorithm>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "protocol/codec.h"
#include "rpc/connection.h"
#include "runtime/worker/shell/fetch.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kMib = 1 << 20;

std::string large_bytes(uint32_t seed, uint64_t size) {
  std::string bytes(size, '\0');
  for (uint64_t i = 0; i < size; i += 64) {
    seed = seed * 1'664'525 + 1'013'904'223;
    bytes[i] = static_cast<char>(seed >> 24);
  }
  return bytes;
}

// The coordinator's side of a worker's fetches.
struct FakeSource {
  std::string bytes;
  uint64_t open_until = UINT64_MAX;  // reads beyond wait
  std::vector<uint64_t> offsets;     // that were read
  std::list<std::pair<uint64_t, kj::Own<kj::PromiseFulfiller<void>>>> waiting;

  void open() {
    open_until = UINT64_MAX;
    for (auto& [offset, fulfiller] : std::exchange(waiting, {})) fulfiller->fulfill();
  }
  kj::Promise<void> until(uint64_t offset) {
    if (offset < open_until) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    waiting.emplace_back(offset, kj::mv(paf.fulfiller));
    return kj::mv(paf.promise);
  }
};

class FakeBlobs final : public protocol::Blobs::Server {
 public:
  explicit FakeBlobs(std::shared_ptr<FakeSource> source) : source_(std::move(source)) {}
  kj::Promise<void> read(ReadContext context) override {
    const uint64_t offset = context.getParams().getOffset();
    const uint32_t bytes = context.getParams().getMaxBytes();
    source_->offsets.push_back(offset);
    return source_->until(offset).then([context, source = source_, offset, bytes]() mutable {
      context.getResults().setData(
          protocol::as_data(std::string_view(source->bytes).substr(offset, bytes)));
    });
  }

 private:
  std::shared_ptr<FakeSource> source_;
};

// A worker that lies, or says nothing.
struct Liar {
  std::string bytes;
  uint64_t gives_until = UINT64_MAX;  // reads beyond are never answered
  uint32_t pieces_of = UINT32_MAX;
  absl::Status refuses;  // what it says to a ticket
};

class LyingBlob final : public protocol::PassedBlob::Server {
 public:
  explicit LyingBlob(const Liar& liar) : liar_(liar) {}
  kj::Promise<void> read(ReadContext context) override {
    const uint64_t offset = context.getParams().getOffset();
    if (offset >= liar_.gives_until) return kj::NEVER_DONE;
    const uint32_t bytes = std::min(context.getParams().getMaxBytes(), liar_.pieces_of);
    context.getResults().setData(
        protocol::as_data(std::string_view(liar_.bytes).substr(offset, bytes)));
    return kj::READY_NOW;
  }

 private:
  const Liar& liar_;
};

class LyingBlobs final : public protocol::PassedBlobs::Server {
 public:
  explicit LyingBlobs(const Liar& liar) : liar_(liar) {}
  kj::Promise<void> open(OpenContext context) override {
    rpc::throw_if_error(liar_.refuses);
    context.getResults().setBlob(kj::heap<LyingBlob>(liar_));
    return kj::READY_NOW;
  }

 private:
  const Liar& liar_;
};

class FakeFinder final : public HolderFinder {
 public:
  kj::Promise<std::optional<Holder>> find_holder(const BlobRef& blob,
                                                 const std::set<uint64_t>& without,
                                                 uint64_t failed) override {
    if (failed != 0) failures.push_back(failed);
    if (without.contains(0)) {  // it wants none
      ++told;
      return std::optional<Holder>();
    }
    ++asked;
    last_without = without;
    return find(blob, without);
  }
  void fetched(const Digest&, bool here) override { ends.push_back(here); }

  std::function<std::optional<Holder>(const BlobRef&, const std::set<uint64_t>&)> find =
      [](const BlobRef&, const std::set<uint64_t>&) { return std::nullopt; };
  int asked = 0, told = 0;
  std::set<uint64_t> last_without;
  std::vector<uint64_t> failures;
  std::vector<bool> ends;
};

struct Node {
  Node(rpc::Loop& l, const std::string& bytes) : loop(l) {
    cache = Cache::open(directory.path(), 1 << 30).value();
    pass_on = std::make_unique<PassOn>(loop, cache);
    fetcher = std::make_unique<Fetcher>(loop, cache);
    source->bytes = bytes;
    fetcher->set_source(protocol::Blobs::Client(kj::heap<FakeBlobs>(source)));
    fetcher->set_passing(&finder, pass_on.get(), {.connect_ms = 2'000, .stall_ms = 60'000});
  }
  kj::Promise<void> ensure(const BlobRef& blob) {
    cache->pin({blob});
    return fetcher->ensure({blob}).eagerlyEvaluate(nullptr);
  }
  std::string content(const BlobRef& blob) {
    return cache->store().read(blob.digest, 0, blob.size_bytes).value_or("nothing");
  }

  rpc::Loop& loop;
  TemporaryDirectory directory;
  FakeFinder finder;
  std::shared_ptr<FakeSource> source = std::make_shared<FakeSource>();
  std::shared_ptr<Cache> cache;
  std::unique_ptr<PassOn> pass_on;
  std::unique_ptr<Fetcher> fetcher;
};

class PassOnTest : public testing::Test {
 protected:
  // As the coordinator does: the holder is told a ticket, the answer is for whoever asks.
  Holder holder_of(Node& node, uint64_t worker, const std::string& address = "127.0.0.1") {
    std::string ticket(kTicketBytes, 't');
    ticket[0] = static_cast<char>(next_ticket_++);
    auto offer = node.pass_on->offer(blob_, ticket, address);
    EXPECT_TRUE(offer.ok()) << offer.status();
    if (!offer.ok()) return {};
    return {worker, "127.0.0.1", offer->port, offer->certificate_pem, ticket};
  }
  Holder listen(const Liar& liar, uint64_t worker) {
    rpc::ListenOptions options;
    options.address = {"127.0.0.1", 0};
    auto listener = rpc::listen(loop_, options, [&liar](const rpc::Peer&) {
      return capnp::Capability::Client(kj::heap<LyingBlobs>(liar));
    });
    EXPECT_TRUE(listener.ok()) << listener.status();
    listeners_.push_back(std::move(*listener));
    return {worker, "127.0.0.1", listeners_.back()->local_address().port, "", "ticket"};
  }
  static auto always(Holder holder) {
    return [holder](const BlobRef&, const std::set<uint64_t>& without) -> std::optional<Holder> {
      if (without.contains(holder.worker)) return std::nullopt;
      return holder;
    };
  }
  kj::Own<HolderConnection> open(const Holder& holder) {
    return loop_.wait(HolderConnection::open(loop_, holder, 10'000));
  }
  absl::Status open_status(const Holder& holder) {
    return loop_.wait(HolderConnection::open(loop_, holder, 10'000)
                          .then([](auto&&) { return absl::OkStatus(); },
                                [](kj::Exception&& e) { return rpc::to_status(e); }));
  }
  void wait_until(const std::function<bool()>& condition) {
    while (!condition()) {
      auto paf = kj::newPromiseAndFulfiller<void>();
      loop_.post([&] { paf.fulfiller->fulfill(); });
      loop_.wait(kj::mv(paf.promise));
    }
  }

  rpc::Loop loop_;
  const std::string bytes_ = large_bytes(7, 16 * kMib + 5);
  const BlobRef blob_ = blob_of(bytes_);
  std::vector<std::unique_ptr<rpc::Listener>> listeners_;
  int next_ticket_ = 1;
};

TEST_F(PassOnTest, ABlobComesFromTheWorkerThatHasIt) {
  Node a(loop_, bytes_), b(loop_, bytes_);
  loop_.wait(a.ensure(blob_));
  EXPECT_EQ(a.finder.ends, std::vector<bool>{true});
  EXPECT_FALSE(a.pass_on->listening()) << "nobody was told that it has anything";
  b.finder.find = always(holder_of(a, 1));
  EXPECT_TRUE(a.pass_on->listening());
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_TRUE(b.source->offsets.empty()) << "the coordinator was not asked for a byte";
  EXPECT_EQ(b.finder.ends, std::vector<bool>{true});
  wait_until([&] { return !a.pass_on->listening(); });
}

TEST_F(PassOnTest, OffTheMachineItIsTlsWithItsOwnCertificate) {
  Node a(loop_, bytes_), b(loop_, bytes_), c(loop_, bytes_);
  loop_.wait(a.ensure(blob_));
  // A name, so that it listens on all addresses, and on this machine's too.
  const Holder holder = holder_of(a, 1, "a.worker.invalid");
  EXPECT_NE(holder.certificate_pem.find("BEGIN CERTIFICATE"), std::string::npos);
  b.finder.find = always(holder);
  loop_.wait(b.ensure(blob_));
  EXPECT_TRUE(b.source->offsets.empty());
  EXPECT_EQ(b.content(blob_), bytes_);

  Holder other = holder_of(a, 1, "a.worker.invalid");
  other.certificate_pem = rpc::make_identity().value().certificate_pem;
  c.finder.find = always(other);
  loop_.wait(c.ensure(blob_));
  EXPECT_FALSE(c.source->offsets.empty()) << "who has another certificate is not read from";
  EXPECT_EQ(c.finder.failures, std::vector<uint64_t>{1});
}

TEST_F(PassOnTest, WithoutATicketNothingIsGivenAndEachServesOnce) {
  Node a(loop_, bytes_);
  loop_.wait(a.ensure(blob_));
  const Holder holder = holder_of(a, 1);
  Holder guess = holder;
  guess.ticket.back() ^= 1;
  EXPECT_TRUE(absl::IsUnauthenticated(open_status(guess)));
  guess.ticket.clear();
  EXPECT_TRUE(absl::IsUnauthenticated(open_status(guess)));
  auto reader = open(holder);
  EXPECT_EQ(loop_.wait(reader->read(5, 100)), bytes_.substr(5, 100));
  EXPECT_EQ(loop_.wait(reader->read(blob_.size_bytes - 3, 100)),
            bytes_.substr(blob_.size_bytes - 3));
  EXPECT_EQ(loop_.wait(reader->read(UINT64_MAX, 100)), "");
  EXPECT_TRUE(absl::IsUnauthenticated(open_status(holder))) << "the second time";
}

TEST_F(PassOnTest, ATicketThatNobodyBringsIsVoidAndThePortIsClosed) {
  Node a(loop_, bytes_);
  loop_.wait(a.ensure(blob_));
  PassOn brief(loop_, a.cache, {.ticket_ms = 1});
  ASSERT_TRUE(brief.offer(blob_, std::string(kTicketBytes, 'x'), "127.0.0.1").ok());
  EXPECT_TRUE(brief.listening());
  wait_until([&] { return !brief.listening(); });
}

TEST_F(PassOnTest, WhatIsNeitherHereNorComingIsNotOffered) {
  Node a(loop_, bytes_);
  const std::string ticket(kTicketBytes, 'x');
  EXPECT_TRUE(absl::IsNotFound(a.pass_on->offer(blob_, ticket, "127.0.0.1").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(a.pass_on->offer(blob_, "short", "127.0.0.1").status()));
  EXPECT_FALSE(a.pass_on->listening());
}

TEST_F(PassOnTest, WhatHasComeSoFarIsGivenOnAlready) {
  Node a(loop_, bytes_), b(loop_, bytes_);
  a.source->open_until = 8 * kMib;
  auto first = a.ensure(blob_);
  b.finder.find = [&](const BlobRef&, const std::set<uint64_t>&) { return holder_of(a, 1); };
  wait_until([&] { return !a.source->offsets.empty(); });
  auto second = b.ensure(blob_);
  wait_until([&] { return b.finder.asked > 0; });
  // From b, which reads from a, which waits for the coordinator.
  auto reader = open(holder_of(b, 2));
  EXPECT_EQ(loop_.wait(reader->read(7 * kMib, 100)), bytes_.substr(7 * kMib, 100));
  EXPECT_FALSE(a.cache->contains(blob_.digest));
  auto more = reader->read(9 * kMib, 100);
  a.source->open();
  EXPECT_EQ(loop_.wait(kj::mv(more)), bytes_.substr(9 * kMib, 100));
  loop_.wait(kj::mv(first));
  loop_.wait(kj::mv(second));
  EXPECT_TRUE(b.source->offsets.empty());
  EXPECT_EQ(b.content(blob_), bytes_);
}

TEST_F(PassOnTest, WhenTheWorkerDiesTheRestComesFromTheCoordinator) {
  auto a = std::make_unique<Node>(loop_, bytes_);
  Node b(loop_, bytes_);
  a->source->open_until = 8 * kMib;
  auto first = a->ensure(blob_);
  wait_until([&] { return !a->source->offsets.empty(); });
  b.finder.find = always(holder_of(*a, 1));
  auto second = b.ensure(blob_);
  wait_until([&] { return b.finder.asked > 0; });
  auto reader = open(holder_of(b, 2));
  EXPECT_EQ(loop_.wait(reader->read(6 * kMib, 100)), bytes_.substr(6 * kMib, 100));
  first = nullptr;
  a.reset();
  loop_.wait(kj::mv(second));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_EQ(b.finder.failures, std::vector<uint64_t>{1});
  ASSERT_FALSE(b.source->offsets.empty());
  EXPECT_GE(*std::min_element(b.source->offsets.begin(), b.source->offsets.end()), 6 * kMib)
      << "nothing that has come comes again";
  EXPECT_EQ(loop_.wait(reader->read(15 * kMib, 100)), bytes_.substr(15 * kMib, 100));
}

TEST_F(PassOnTest, AnotherWorkerGoesOnWhereOneHasStopped) {
  Node a(loop_, bytes_), b(loop_, bytes_);
  loop_.wait(a.ensure(blob_));
  const Liar dumb{bytes_, 4 * kMib};
  const Holder silent = listen(dumb, 1), good = holder_of(a, 2);
  b.fetcher->set_passing(&b.finder, b.pass_on.get(), {.connect_ms = 2'000, .stall_ms = 50});
  b.finder.find = [&](const BlobRef&, const std::set<uint64_t>& without) {
    return without.contains(1) ? good : silent;
  };
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_TRUE(b.source->offsets.empty());
  EXPECT_EQ(b.finder.failures, std::vector<uint64_t>{}) << "it may wait for another one itself";
}

TEST_F(PassOnTest, OneThatIsTooSlowIsLeftAndNotAskedForTheNext) {
  Node b(loop_, bytes_);
  // No worker is as fast as that.
  b.fetcher->set_passing(&b.finder, b.pass_on.get(),
                         {.connect_ms = 2'000,
                          .stall_ms = 60'000,
                          .least_bytes_per_s = uint64_t{1} << 40,
                          .judge_after_ms = 0});
  const Liar slow{bytes_};
  b.finder.find = always(listen(slow, 1));
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_FALSE(b.source->offsets.empty());
  EXPECT_EQ(b.finder.failures, std::vector<uint64_t>{}) << "it may be given no more itself";
  b.source->bytes = large_bytes(8, 5 * kMib);
  loop_.wait(b.ensure(blob_of(b.source->bytes)));
  EXPECT_TRUE(b.finder.last_without.contains(1));
}

TEST_F(PassOnTest, OneThatCannotBeReachedCostsNothingButTheTry) {
  Node b(loop_, bytes_);
  const Liar unused{bytes_};
  const Holder nobody = listen(unused, 1);
  listeners_.clear();
  b.finder.find = always(nobody);
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_EQ(b.finder.failures, std::vector<uint64_t>{1});
  // Nor is it tried for the next blob.
  b.source->bytes = large_bytes(8, 5 * kMib);
  loop_.wait(b.ensure(blob_of(b.source->bytes)));
  EXPECT_TRUE(b.finder.last_without.contains(1));
  EXPECT_EQ(b.finder.failures.size(), 1u);
}

TEST_F(PassOnTest, OneThatHasLostABlobIsAskedForTheNext) {
  Node b(loop_, bytes_);
  const Liar lost{bytes_, UINT64_MAX, UINT32_MAX, absl::NotFoundError("not here any more")};
  b.finder.find = always(listen(lost, 1));
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_EQ(b.finder.failures, std::vector<uint64_t>{1});
  b.source->bytes = large_bytes(8, 5 * kMib);
  loop_.wait(b.ensure(blob_of(b.source->bytes)));
  EXPECT_EQ(b.finder.failures, (std::vector<uint64_t>{1, 1}));
}

TEST_F(PassOnTest, WrongBytesAreGivenToNobodyAndTheirGiverIsNotAskedAgain) {
  Node b(loop_, bytes_);
  Liar liar{bytes_};
  liar.bytes[3 * kMib] ^= 1;
  b.finder.find = always(listen(liar, 1));
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_EQ(b.source->offsets.size(), 17u) << "all of it, once, from the coordinator";
  EXPECT_EQ(b.finder.failures, std::vector<uint64_t>{1}) << "the coordinator is told of it";
  EXPECT_EQ(b.finder.told, 1);
  b.source->bytes = large_bytes(8, 5 * kMib);
  const BlobRef next = blob_of(b.source->bytes);
  loop_.wait(b.ensure(next));
  EXPECT_TRUE(b.finder.last_without.contains(1));
  EXPECT_EQ(b.content(next), b.source->bytes);
}

TEST_F(PassOnTest, PiecesOfTheWrongSizeAreNotTaken) {
  Node b(loop_, bytes_), c(loop_, bytes_);
  const Liar stingy{bytes_, UINT64_MAX, 1'000};
  b.finder.find = always(listen(stingy, 1));
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_EQ(b.finder.failures, std::vector<uint64_t>{1});
  const Liar empty{""};
  c.finder.find = always(listen(empty, 1));
  loop_.wait(c.ensure(blob_));
  EXPECT_EQ(c.content(blob_), bytes_);
}

TEST_F(PassOnTest, FourAreTriedThenTheCoordinatorIsAsked) {
  Node b(loop_, bytes_);
  const Liar empty{""};
  uint64_t next = 1;
  b.finder.find = [&](const BlobRef&, const std::set<uint64_t>&) { return listen(empty, next++); };
  loop_.wait(b.ensure(blob_));
  EXPECT_EQ(b.content(blob_), bytes_);
  EXPECT_EQ(next, 5u);
  EXPECT_EQ(b.finder.failures, (std::vector<uint64_t>{1, 2, 3, 4})) << "the last one, too";
  EXPECT_EQ(b.finder.told, 1);
}

TEST_F(PassOnTest, ExpiredTicketsMakeRoomForOthers) {
  Node a(loop_, bytes_);
  loop_.wait(a.ensure(blob_));
  PassOn brief(loop_, a.cache, {.ticket_ms = 0});
  for (int i = 0; i < 300; ++i) {
    std::string ticket(kTicketBytes, 'x');
    ticket.replace(0, 3, std::to_string(100 + i));
    EXPECT_TRUE(brief.offer(blob_, ticket, "127.0.0.1").ok()) << i;
  }
}

TEST_F(PassOnTest, AReaderThatLeavesWaitsForNothing) {
  Node a(loop_, bytes_);
  a.source->open_until = 8 * kMib;
  auto fetch = a.ensure(blob_);
  wait_until([&] { return !a.source->offsets.empty(); });
  auto reader = open(holder_of(a, 1));
  EXPECT_EQ(loop_.wait(reader->read(0, 100)), bytes_.substr(0, 100));
  auto never = reader->read(12 * kMib, 100);
  // Calls arrive in order: when this one is answered, that one waits.
  EXPECT_EQ(loop_.wait(reader->read(kMib, 100)), bytes_.substr(kMib, 100));
  EXPECT_TRUE(a.pass_on->listening());
  never = nullptr;
  reader = nullptr;
  wait_until([&] { return !a.pass_on->listening(); });
  EXPECT_FALSE(a.cache->contains(blob_.digest)) << "while it is still on its way";
}

TEST_F(PassOnTest, AReaderThatReadsNothingKeepsNoPortOpen) {
  Node a(loop_, bytes_);
  loop_.wait(a.ensure(blob_));
  PassOn brief(loop_, a.cache, {.ticket_ms = 30'000, .idle_ms = 1});
  const std::string ticket(kTicketBytes, 'x');
  auto offer = brief.offer(blob_, ticket, "127.0.0.1");
  ASSERT_TRUE(offer.ok()) << offer.status();
  auto reader = open({1, "127.0.0.1", offer->port, "", ticket});
  wait_until([&] { return !brief.listening(); });
}

TEST_F(PassOnTest, AWorkerThatEndsWhileItWritesLosesNothingTwice) {
  auto a = std::make_unique<Node>(loop_, bytes_);
  a->source->open_until = 8 * kMib;
  auto fetch = a->ensure(blob_);
  wait_until([&] { return !a->source->offsets.empty(); });
  // So much has been written that there is a file, which goes with the writer.
  EXPECT_EQ(loop_.wait(open(holder_of(*a, 1))->read(7 * kMib, 100)), bytes_.substr(7 * kMib, 100));
  // The pool has no more threads than these; what is to be written waits behind them.
  std::promise<void> gate;
  std::shared_future<void> opened = gate.get_future().share();
  int done = 0;
  for (int i = 0; i < 8; ++i) loop_.run_blocking([opened] { opened.wait(); }, [&] { ++done; });
  a->source->open();
  int turns = 0;
  wait_until([&] { return ++turns > 100; });
  const std::weak_ptr<Cache> cache = a->cache;
  fetch = nullptr;
  a.reset();
  EXPECT_FALSE(cache.expired()) << "what is to be written holds it";
  gate.set_value();
  wait_until([&] { return done == 8 && cache.expired(); });
}

TEST_F(PassOnTest, WithoutACoordinatorAWorkerStillServesAndOneGivesUpForNow) {
  Node a(loop_, bytes_), b(loop_, bytes_);
  a.source->open_until = 8 * kMib;
  auto first = a.ensure(blob_);
  wait_until([&] { return !a.source->offsets.empty(); });
  b.finder.find = always(holder_of(a, 1));
  auto second = b.ensure(blob_);
  wait_until([&] { return b.finder.asked > 0; });
  b.fetcher->set_source(std::nullopt);
  a.source->open();
  loop_.wait(kj::mv(first));
  loop_.wait(kj::mv(second));
  EXPECT_EQ(b.content(blob_), bytes_);
}

TEST_F(PassOnTest, SmallerOnesAreAlwaysTheCoordinators) {
  const std::string bytes = large_bytes(9, 4 * kMib);
  Node a(loop_, bytes);
  loop_.wait(a.ensure(blob_of(bytes)));
  EXPECT_EQ(a.finder.asked, 0);
  EXPECT_TRUE(a.finder.ends.empty());
}

}  // namespace
}  // namespace pesc::worker
