// A whole worker that passes blobs on, or does not, with a coordinator that does not know of that.
#include "runtime/worker/shell/holder.h"
#include "runtime/worker/shell/pass_on.h"
#include "tests/worker_shell/worker_fixture.h"

namespace pesc::worker {
namespace {

const std::string kTicket(kTicketBytes, 't');

TEST_F(WorkerTest, PassesOnWhatItHasFetchedFromAnOlderCoordinator) {
  Options options;
  options.pass_on = true;
  open(options);
  EXPECT_TRUE(fake_.passes_on);
  const std::string large(5'000'000, 'L');
  JobSpec spec = script("wc -c < large");
  spec.files.push_back(input("large", large, FileKind::shared_file));
  EXPECT_TRUE(absl::IsNotFound(fake_.pass_on(blob_of(large), kTicket).status()));
  fake_.lease(key_of(0), spec);
  const auto& end = fake_.wait_for_end(key_of(0));
  ASSERT_EQ(end.outcome.reason, EndReason::succeeded) << end.outcome.detail;
  EXPECT_EQ(read_file(unpacked(end.output) / "output.txt"), "5000000\n");
  EXPECT_EQ(fake_.reads[sha256(large)], 5);

  const absl::StatusOr<uint16_t> port = fake_.pass_on(blob_of(large), kTicket);
  ASSERT_TRUE(port.ok()) << port.status();
  auto reader =
      loop_.wait(HolderConnection::open(loop_, {1, "127.0.0.1", *port, "", kTicket}, 10'000));
  EXPECT_EQ(loop_.wait(reader->read(4'999'000, 1 << 20)), std::string(1'000, 'L'));
}

TEST_F(WorkerTest, PassesNothingOnUnlessItIsToldTo) {
  open();
  EXPECT_FALSE(fake_.passes_on);
  const std::string large(5'000'000, 'L');
  JobSpec spec = script("wc -c < large");
  spec.files.push_back(input("large", large, FileKind::shared_file));
  fake_.lease(key_of(0), spec);
  fake_.wait_for_end(key_of(0));
  EXPECT_TRUE(absl::IsFailedPrecondition(fake_.pass_on(blob_of(large), kTicket).status()));
}

}  // namespace
}  // namespace pesc::worker
