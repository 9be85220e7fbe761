#include "blob/store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <set>
#include <thread>

#include "blob/files.h"
#include "blob/hash.h"
#include "blob/pack_file.h"
#include "blob_testing.h"

namespace pesc::blob {
namespace {

using ::testing::HasSubstr;

std::string blob_number(int i) { return "blob " + std::to_string(i) + noise(i % 500, i + 1); }

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.directory = dir_ / "blobs";
    options_.pack_below_bytes = 1000;
    options_.pack_target_bytes = 10'000;
    options_.sync_for_test = [this](int fd) {
      ++syncs_;
      if (failing_ > 0) {
        --failing_;
        return EIO;
      }
      return ::fdatasync(fd) == 0 ? 0 : errno;
    };
    open();
  }

  void open() {
    store_ = nullptr;
    absl::StatusOr<std::unique_ptr<Store>> store = Store::open(options_);
    ASSERT_OK(store.status());
    store_ = *std::move(store);
  }

  // As after a kill -9: what is on the disk now, opened anew.
  void crash() {
    const fs::path copy = dir_ / ("crashed" + std::to_string(++crashes_));
    fs::copy(options_.directory, copy, fs::copy_options::recursive);
    store_ = nullptr;
    options_.directory = copy;
  }

  Digest put(std::string_view bytes) {
    absl::StatusOr<BlobRef> blob = store_->put(bytes);
    EXPECT_TRUE(blob.ok()) << blob.status();
    EXPECT_EQ(blob->size_bytes, bytes.size());
    EXPECT_EQ(blob->digest, sha256(bytes));
    return blob->digest;
  }

  void expect_holds(std::string_view bytes) {
    const Digest digest = sha256(bytes);
    EXPECT_TRUE(store_->contains(digest));
    EXPECT_EQ(store_->size_bytes(digest), bytes.size());
    absl::StatusOr<std::string> read = store_->read(digest, 0, UINT64_MAX);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, bytes);
  }

  std::set<std::string> files(const std::string& folder) {
    std::set<std::string> names;
    for (const auto& [name, bytes] : tree(options_.directory / folder)) {
      if (!name.ends_with('/')) names.insert(name);
    }
    return names;
  }

  TempDir dir_;
  StoreOptions options_;
  std::unique_ptr<Store> store_;
  std::atomic<int> syncs_{0}, failing_{0};
  int crashes_ = 0;
};

TEST_F(StoreTest, KeepsSmallAndLargeAndEmptyBlobs) {
  const std::string small = "small", large = noise(100'000), limit = noise(1000, 5);
  for (const std::string& bytes : {small, large, limit, std::string()}) {
    EXPECT_FALSE(store_->contains(sha256(bytes)));
    put(bytes);
    expect_holds(bytes);
  }
  EXPECT_EQ(*store_->read(sha256(large), 99'990, 100), large.substr(99'990));
  EXPECT_EQ(*store_->read(sha256(small), 1, 2), "ma");
  EXPECT_EQ(*store_->read(sha256(small), 5, 2), "");
  EXPECT_TRUE(absl::IsNotFound(store_->read(sha256("no"), 0, 1).status()));
  EXPECT_EQ(store_->stats().blobs, 4u);
  EXPECT_EQ(store_->stats().live_bytes, 5u + 100'000 + 1000);
  ASSERT_OK(store_->sync());
  open();
  for (const std::string& bytes : {small, large, limit, std::string()}) expect_holds(bytes);
  EXPECT_EQ(store_->stats().live_bytes, 5u + 100'000 + 1000);
}

TEST_F(StoreTest, TheSameBytesAreStoredOnce) {
  put("x");
  put(noise(5000));
  const StoreStats before = store_->stats();
  put("x");
  put(noise(5000));
  EXPECT_EQ(store_->stats().file_bytes, before.file_bytes);
  EXPECT_EQ(store_->stats().blobs, 2u);
}

TEST_F(StoreTest, ManySmallBlobsMakeFewFiles) {
  for (int i = 0; i < 1000; ++i) put(blob_number(i));
  ASSERT_OK(store_->sync());
  const size_t packs = files("packs").size();
  EXPECT_LT(packs, 90u);  // packs of 10,000 bytes and their indexes
  EXPECT_EQ(store_->stats().files, packs);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 1000; ++i) expect_holds(blob_number(i));
    open();
  }
  EXPECT_LE(files("packs").size(), packs + 1);
}

TEST_F(StoreTest, WhatWasSyncedSurvivesACrash) {
  for (int i = 0; i < 100; ++i) put(blob_number(i));
  put(noise(50'000));
  ASSERT_OK(store_->sync());
  crash();
  open();
  for (int i = 0; i < 100; ++i) expect_holds(blob_number(i));
  expect_holds(noise(50'000));
}

TEST_F(StoreTest, ALargeBlobThatWasNotSyncedIsGoneAfterACrash) {
  put(noise(50'000));
  crash();
  open();
  EXPECT_FALSE(store_->contains(sha256(noise(50'000))));
  EXPECT_TRUE(files("tmp").empty());
}

TEST_F(StoreTest, ATornTailIsCut) {
  for (int i = 0; i < 5; ++i) put(blob_number(i));
  ASSERT_OK(store_->sync());
  crash();
  const fs::path pack = options_.directory / "packs/00000001.pack";
  const std::string whole = read_file(pack);
  const size_t last = kEntryHeaderBytes + blob_number(4).size();
  for (size_t keep = whole.size() - 1; keep >= whole.size() - last; --keep) {
    write_file(pack, whole.substr(0, keep));
    open();
    for (int i = 0; i < 4; ++i) expect_holds(blob_number(i));
    EXPECT_FALSE(store_->contains(sha256(blob_number(4)))) << keep;
    EXPECT_EQ(fs::file_size(pack), whole.size() - last);
    store_ = nullptr;
    fs::remove(options_.directory / "packs/00000001.idx");
  }
  open();
  put(blob_number(4));
  open();
  for (int i = 0; i < 5; ++i) expect_holds(blob_number(i));
}

TEST_F(StoreTest, ADamagedEntryCostsOnlyItself) {
  for (int i = 0; i < 5; ++i) put(blob_number(i));
  ASSERT_OK(store_->sync());
  crash();
  const fs::path pack = options_.directory / "packs/00000001.pack";
  const std::string whole = read_file(pack);
  const size_t second = kEntryHeaderBytes + blob_number(0).size();
  for (const size_t at : {second, second + 9, second + 20, second + 49, second + 55}) {
    std::string bad = whole;
    bad[at] ^= 1;
    write_file(pack, bad);
    fs::remove(options_.directory / "packs/00000001.idx");
    open();
    EXPECT_FALSE(store_->contains(sha256(blob_number(1)))) << at;
    for (int i : {0, 2, 3, 4}) expect_holds(blob_number(i));
    store_ = nullptr;
  }
}

// A blob may hold bytes that look like an entry of a pack: they must not become one.
TEST_F(StoreTest, AForgedEntryInsideABlobIsNotBelieved) {
  const Digest forged = sha256("the real thing");
  const auto header = encode_entry_header(forged, 4);
  put("first");
  put(std::string(header.data(), header.size()) + "evil");
  ASSERT_OK(store_->sync());
  crash();
  const fs::path pack = options_.directory / "packs/00000001.pack";
  std::string bytes = read_file(pack);
  bytes[kEntryHeaderBytes + 5] ^= 1;  // the header of the second
  write_file(pack, bytes);
  open();
  EXPECT_FALSE(store_->contains(forged));
  expect_holds("first");
}

TEST_F(StoreTest, ABadIndexIsMadeAnew) {
  for (int i = 0; i < 200; ++i) put(blob_number(i));
  open();
  const std::set<std::string> before = files("packs");
  store_ = nullptr;
  int count = 0;
  for (const std::string& name : before) {
    if (!name.ends_with(".idx")) continue;
    const fs::path path = options_.directory / "packs" / name;
    std::string bytes = read_file(path);
    ++count % 2 == 0 ? bytes.resize(bytes.size() / 2) : (bytes[30] ^= 1, void());
    write_file(path, bytes);
  }
  ASSERT_GT(count, 2);
  open();
  for (int i = 0; i < 200; ++i) expect_holds(blob_number(i));
  open();
  for (const std::string& name : before) {
    if (!name.ends_with(".idx")) continue;
    EXPECT_TRUE(decode_index(read_file(options_.directory / "packs" / name))) << name;
  }
}

TEST_F(StoreTest, WritersTakePieces) {
  for (const size_t size : {size_t{0}, size_t{10}, size_t{999}, size_t{1000}, size_t{70'000}}) {
    const std::string bytes = noise(size, size + 1);
    const BlobRef expected{sha256(bytes), size};
    absl::StatusOr<std::unique_ptr<Store::Writer>> writer = store_->begin(expected);
    ASSERT_OK(writer.status());
    for (size_t at = 0; at < size; at += 333) {
      ASSERT_OK((*writer)->append(std::string_view(bytes).substr(at, 333)));
    }
    EXPECT_EQ((*writer)->written_bytes(), size);
    EXPECT_FALSE(store_->contains(expected.digest));
    absl::StatusOr<BlobRef> blob = (*writer)->finish();
    ASSERT_OK(blob.status());
    EXPECT_EQ(*blob, expected);
    expect_holds(bytes);
  }
}

TEST_F(StoreTest, WhatHasComeOfALargeBlobCanBeReadMeanwhile) {
  const std::string bytes = noise(70'000);
  auto writer = *store_->begin(BlobRef{sha256(bytes), bytes.size()});
  EXPECT_EQ(writer->prefix(), nullptr);
  ASSERT_OK(writer->append(std::string_view(bytes).substr(0, 5'000)));
  const std::shared_ptr<const Store::Prefix> prefix = writer->prefix();
  ASSERT_NE(prefix, nullptr);
  EXPECT_EQ(*prefix->read(4'990, 100), bytes.substr(4'990, 10));
  ASSERT_OK(writer->append(std::string_view(bytes).substr(5'000)));
  EXPECT_EQ(*prefix->read(4'990, 100), bytes.substr(4'990, 100));
  ASSERT_OK(writer->finish().status());
  writer.reset();
  EXPECT_EQ(*prefix->read(0, bytes.size()), bytes) << "after the writer's end";
  expect_holds(bytes);
}

// Hashed beside the writing, from some size on; in pieces of all sizes, by more than may have a
// thread.
TEST_F(StoreTest, ALargeBlobIsWhatItsPiecesAre) {
  const std::string bytes = noise(9 << 20, 3);
  std::vector<std::unique_ptr<Store::Writer>> writers;
  for (int i = 0; i < 6; ++i) {
    writers.push_back(*store_->begin(std::nullopt));
    size_t piece = 600 << 10;
    for (size_t at = 0; at < bytes.size(); at += piece, piece = piece % (900 << 10) + 70'001) {
      ASSERT_OK(writers.back()->append(std::string_view(bytes).substr(at, piece)));
    }
    EXPECT_EQ(writers.back()->written_bytes(), bytes.size());
  }
  for (auto& writer : writers) {
    EXPECT_EQ(*writer->finish(), (BlobRef{sha256(bytes), bytes.size()}));
  }
  EXPECT_EQ(*store_->read(sha256(bytes), 0, UINT64_MAX), bytes);
  EXPECT_TRUE(store_->has_large_of(bytes.size()));
  EXPECT_FALSE(store_->has_large_of(bytes.size() + 1));
}

TEST_F(StoreTest, WhatIsInMemoryIsReadFromThere) {
  for (const size_t size : {size_t{500}, size_t{100'000}}) {
    const std::string bytes = noise(size, 1);
    const Digest digest = put(bytes);
    std::string got(size, '?');
    if (!store_->read_cached(digest, 0, got.data(), size)) continue;  // not of every file system
    EXPECT_EQ(got, bytes);
    ASSERT_TRUE(store_->read_cached(digest, size - 100, got.data(), 100));
    EXPECT_EQ(got.substr(0, 100), bytes.substr(size - 100));
    EXPECT_FALSE(store_->read_cached(digest, size - 100, got.data(), 101)) << "past its end";
    EXPECT_FALSE(store_->read_cached(digest, UINT64_MAX, got.data(), 1));
  }
  char to = 0;
  EXPECT_FALSE(store_->read_cached(sha256("not here"), 0, &to, 1));
}

TEST_F(StoreTest, AWriterRefusesWhatIsNotExpected) {
  const std::string bytes = noise(5000);
  for (const BlobRef& expected : {BlobRef{sha256("other"), 5000}, BlobRef{sha256(bytes), 5001},
                                  BlobRef{sha256(bytes), 4999}, BlobRef{sha256(bytes), 1}}) {
    auto writer = *store_->begin(expected);
    absl::Status status = writer->append(bytes);
    if (status.ok()) status = writer->finish().status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_FALSE(writer->finish().ok());
  }
  EXPECT_EQ(store_->stats().blobs, 0u);
  EXPECT_TRUE(files("tmp").empty());
}

TEST_F(StoreTest, AWriterThatDiesLeavesNothing) {
  {
    auto writer = *store_->begin(std::nullopt);
    ASSERT_OK(writer->append(noise(50'000)));
    EXPECT_EQ(files("tmp").size(), 1u);
  }
  EXPECT_TRUE(files("tmp").empty());
  EXPECT_EQ(store_->stats().blobs, 0u);
}

TEST_F(StoreTest, TwoWritersOfTheSameBlobAgree) {
  auto one = *store_->begin(std::nullopt), two = *store_->begin(std::nullopt);
  ASSERT_OK(one->append(noise(50'000)));
  ASSERT_OK(two->append(noise(50'000)));
  ASSERT_OK(one->finish().status());
  ASSERT_OK(two->finish().status());
  EXPECT_EQ(store_->stats().blobs, 1u);
  ASSERT_OK(store_->sync());
  EXPECT_TRUE(files("tmp").empty());
  EXPECT_EQ(files("large").size(), 1u);
}

TEST_F(StoreTest, TakesFiles) {
  write_file(dir_ / "small", "abc");
  write_file(dir_ / "large", noise(3'000'000));
  ASSERT_OK(store_->put_file(dir_ / "small").status());
  ASSERT_OK(store_->put_file(dir_ / "large").status());
  expect_holds("abc");
  expect_holds(noise(3'000'000));
  EXPECT_TRUE(fs::exists(dir_ / "large"));
  EXPECT_TRUE(absl::IsNotFound(store_->put_file(dir_ / "none").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->put_file(dir_.path()).status()));
}

TEST_F(StoreTest, MaterialisesWithTheExactMode) {
  const mode_t before = ::umask(077);
  const std::string small = "small", large = noise(300'000);
  for (const std::string& bytes : {small, large}) {
    const Digest digest = put(bytes);
    for (const uint32_t mode : {0644u, 0755u, 0444u}) {
      for (const bool link : {false, true}) {
        const fs::path target = dir_ / "target";
        ASSERT_OK(store_->materialise(digest, target, mode, link));
        EXPECT_EQ(read_file(target), bytes);
        EXPECT_EQ(static_cast<uint32_t>(fs::status(target).permissions()), mode);
        EXPECT_TRUE(absl::IsAlreadyExists(store_->materialise(digest, target, mode, link)));
        EXPECT_EQ(fs::hard_link_count(target), link && bytes == large ? 2u : 1u);
        fs::remove(target);
      }
    }
  }
  ::umask(before);
  EXPECT_TRUE(absl::IsNotFound(store_->materialise(sha256("no"), dir_ / "t", 0644, false)));
  EXPECT_FALSE(fs::exists(dir_ / "t"));
}

TEST_F(StoreTest, ALinkNeverChangesTheModeOfAnother) {
  const Digest digest = put(noise(50'000));
  ASSERT_OK(store_->materialise(digest, dir_ / "a", 0444, true));
  ASSERT_OK(store_->sync());
  ASSERT_OK(store_->materialise(digest, dir_ / "b", 0555, true));
  ASSERT_OK(store_->materialise(digest, dir_ / "c", 0444, true));
  EXPECT_EQ(fs::status(dir_ / "a").permissions(), fs::perms(0444));
  EXPECT_EQ(fs::status(dir_ / "b").permissions(), fs::perms(0555));
  EXPECT_EQ(fs::hard_link_count(dir_ / "a"), 3u);
}

TEST_F(StoreTest, SyncsOnlyWhatIsNew) {
  ASSERT_OK(store_->sync());
  put("a");
  syncs_ = 0;
  ASSERT_OK(store_->sync());
  EXPECT_EQ(syncs_, 1);
  ASSERT_OK(store_->sync());
  EXPECT_EQ(syncs_, 1);
  put("a");
  ASSERT_OK(store_->sync());
  EXPECT_EQ(syncs_, 1);
  put("b");
  put(noise(5000));
  ASSERT_OK(store_->sync());
  EXPECT_EQ(syncs_, 3);
}

TEST_F(StoreTest, NothingIsSyncedWhenItNeedNotBeDurable) {
  options_.durable = false;
  open();
  syncs_ = 0;
  for (int i = 0; i < 100; ++i) put(blob_number(i));
  put(noise(5000));
  ASSERT_OK(store_->sync());
  open();
  EXPECT_EQ(syncs_, 0);
  for (int i = 0; i < 100; ++i) expect_holds(blob_number(i));
  expect_holds(noise(5000));
}

TEST_F(StoreTest, AfterAFailedSyncTheNextWritesAnew) {
  for (int i = 0; i < 3; ++i) put(blob_number(i));
  ASSERT_OK(store_->sync());
  for (int i = 3; i < 6; ++i) put(blob_number(i));
  failing_ = 1;
  EXPECT_FALSE(store_->sync().ok());
  for (int i = 0; i < 6; ++i) expect_holds(blob_number(i));
  put(blob_number(6));
  ASSERT_OK(store_->sync());
  for (int i = 0; i < 7; ++i) expect_holds(blob_number(i));
  // What the failed flush may have lost is not relied on: it lies in another pack.
  crash();
  const fs::path first = options_.directory / "packs/00000001.pack";
  size_t safe = 0;
  for (int i = 0; i < 3; ++i) safe += kEntryHeaderBytes + blob_number(i).size();
  EXPECT_EQ(fs::file_size(first), safe);
  open();
  for (int i = 0; i < 7; ++i) expect_holds(blob_number(i));
}

TEST_F(StoreTest, ALargeBlobWhoseFlushFailedIsGone) {
  put(noise(5000));
  failing_ = 1;
  const absl::Status status = store_->sync();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(message(status), HasSubstr("tmp"));
  EXPECT_FALSE(store_->contains(sha256(noise(5000))));
  EXPECT_TRUE(files("tmp").empty());
  put(noise(5000));
  ASSERT_OK(store_->sync());
  crash();
  open();
  expect_holds(noise(5000));
}

TEST_F(StoreTest, EraseForgetsAndFreesWholePacks) {
  std::vector<Digest> all;
  for (int i = 0; i < 300; ++i) all.push_back(put(blob_number(i)));
  all.push_back(put(noise(5000)));
  ASSERT_OK(store_->sync());
  all.push_back(sha256("unknown"));
  ASSERT_OK(store_->erase(all));
  EXPECT_EQ(store_->stats().blobs, 0u);
  EXPECT_EQ(store_->stats().live_bytes, 0u);
  EXPECT_LE(files("packs").size(), 2u);
  EXPECT_TRUE(files("large").empty());
  put(blob_number(1));
  expect_holds(blob_number(1));
  ASSERT_OK(store_->sync());
}

TEST_F(StoreTest, ErasedBeforeTheSyncIsNoError) {
  const Digest large = put(noise(5000)), small = put("x");
  ASSERT_OK(store_->erase({large, small}));
  ASSERT_OK(store_->sync());
  put(noise(5000));
  ASSERT_OK(store_->sync());
  expect_holds(noise(5000));
}

TEST_F(StoreTest, RetainGivesSpaceBack) {
  std::set<Digest> wanted;
  for (int i = 0; i < 500; ++i) {
    const Digest digest = put(blob_number(i));
    if (i % 10 == 0) wanted.insert(digest);
  }
  const Digest large = put(noise(5000));
  put(noise(6000));
  wanted.insert(large);
  ASSERT_OK(store_->sync());
  const uint64_t before = store_->stats().file_bytes;
  ASSERT_OK(store_->retain([&](const Digest& digest) { return wanted.contains(digest); }));
  EXPECT_LT(store_->stats().file_bytes, before / 4);
  EXPECT_EQ(store_->stats().blobs, 51u);
  crash();
  open();
  EXPECT_EQ(store_->stats().blobs, 51u);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(store_->contains(sha256(blob_number(i))), i % 10 == 0) << i;
    if (i % 10 == 0) expect_holds(blob_number(i));
  }
  ASSERT_OK(store_->retain([](const Digest&) { return false; }));
  EXPECT_TRUE(files("packs").empty());
  EXPECT_TRUE(files("large").empty());
}

TEST_F(StoreTest, RetainKeepsTheOldPacksUntilTheNewOnesAreSafe) {
  std::set<Digest> wanted;
  for (int i = 0; i < 100; ++i) {
    const Digest digest = put(blob_number(i));
    if (i % 10 == 0) wanted.insert(digest);
  }
  ASSERT_OK(store_->sync());
  const std::set<std::string> before = files("packs");
  failing_ = 1'000'000;
  EXPECT_FALSE(store_->retain([&](const Digest& digest) { return wanted.contains(digest); }).ok());
  for (const std::string& name : before) EXPECT_TRUE(files("packs").contains(name)) << name;
  failing_ = 0;
  ASSERT_OK(store_->retain([&](const Digest& digest) { return wanted.contains(digest); }));
  for (int i = 0; i < 100; i += 10) expect_holds(blob_number(i));
  crash();
  open();
  for (int i = 0; i < 100; i += 10) expect_holds(blob_number(i));
}

TEST_F(StoreTest, ASecondOwnerIsRefused) {
  const absl::Status status = Store::open(options_).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(message(status), HasSubstr("in use"));
}

TEST_F(StoreTest, APlaceThatCannotBeADirectoryIsNamed) {
  write_file(dir_ / "file", "");
  const absl::Status status = Store::open({.directory = dir_ / "file"}).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(message(status), HasSubstr((dir_ / "file").string()));
}

// A limit on the size of files stands in for a full disk: both fail a write in its middle.
class FullDisk : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
  }
  void TearDown() override {
    limit(before_.rlim_cur);
    ::signal(SIGXFSZ, handler_);
  }
  void limit(rlim_t bytes) {
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }

  rlimit before_;
  sighandler_t handler_ = nullptr;
};

TEST_F(FullDisk, NothingIsLeftHalfMade) {
  put("before");
  const uint64_t packed = store_->stats().file_bytes;
  limit(500);
  EXPECT_TRUE(absl::IsResourceExhausted(store_->put(noise(600)).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->put(noise(5000)).status()));
  auto writer = *store_->begin(std::nullopt);
  EXPECT_TRUE(absl::IsResourceExhausted(writer->append(noise(5000))));
  EXPECT_TRUE(absl::IsResourceExhausted(writer->finish().status()));
  writer = nullptr;
  EXPECT_EQ(fs::file_size(options_.directory / "packs/00000001.pack"), packed);
  EXPECT_TRUE(files("tmp").empty());
  EXPECT_EQ(store_->stats().blobs, 1u);
  put("fits");
  limit(before_.rlim_cur);
  const Digest digest = put(noise(600));
  const Digest large = put(noise(5000));
  limit(500);
  for (const Digest& each : {digest, large}) {
    EXPECT_TRUE(absl::IsResourceExhausted(store_->materialise(each, dir_ / "target", 0644, false)));
    EXPECT_FALSE(fs::exists(dir_ / "target"));
  }
  limit(before_.rlim_cur);
  ASSERT_OK(store_->sync());
  open();
  expect_holds("before");
  expect_holds("fits");
  expect_holds(noise(600));
}

TEST(ErrnoStatus, AFullOrReadOnlyDiskIsNamed) {
  const absl::Status full = errno_status(ENOSPC, "cannot write", "/data/pesc/blobs/x");
  EXPECT_TRUE(absl::IsResourceExhausted(full));
  EXPECT_THAT(message(full), HasSubstr("free space in /data/pesc/blobs"));
  EXPECT_TRUE(absl::IsResourceExhausted(errno_status(EROFS, "cannot make", "/mnt/x")));
}

TEST_F(StoreTest, ThreadsPutReadAndSyncTogether) {
  constexpr int kThreads = 4, kEach = 400;
  std::atomic<bool> done{false};
  std::atomic<int> errors{0};
  std::thread syncing([&] {
    while (!done) {
      if (!store_->sync().ok()) ++errors;
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        // Half of the blobs are everybody's.
        const std::string bytes =
            i % 50 == 49 ? noise(5000, i + 1) : blob_number(i % 2 == 0 ? i : t * kEach + i);
        absl::StatusOr<BlobRef> blob = store_->put(bytes);
        if (!blob.ok()) {
          ++errors;
          continue;
        }
        absl::StatusOr<std::string> read = store_->read(blob->digest, 0, UINT64_MAX);
        if (!read.ok() || *read != bytes) ++errors;
        if (i % 100 == 0 && !store_->sync().ok()) ++errors;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  syncing.join();
  EXPECT_EQ(errors, 0);
  ASSERT_OK(store_->sync());
  crash();
  open();
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 1; i < kEach; i += 2) {
      if (i % 50 != 49) expect_holds(blob_number(t * kEach + i));
    }
  }
}

TEST_F(StoreTest, APackStreamsThroughTheStore) {
  const Digest digest = put(noise(3'500'000));
  Hasher hasher;
  for (uint64_t at = 0;;) {
    absl::StatusOr<std::string> piece = store_->read(digest, at, 1 << 20);
    ASSERT_OK(piece.status());
    if (piece->empty()) break;
    at += piece->size();
    hasher.update(*piece);
  }
  EXPECT_EQ(hasher.finish(), digest);
}

TEST(HashFile, NamesWhatItReads) {
  TempDir dir;
  write_file(dir / "f", noise(1'000'000));
  absl::StatusOr<BlobRef> blob = hash_file(dir / "f");
  ASSERT_OK(blob.status());
  EXPECT_EQ(*blob, (BlobRef{sha256(noise(1'000'000)), 1'000'000}));
  EXPECT_TRUE(absl::IsNotFound(hash_file(dir / "none").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(hash_file(dir.path()).status()));
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(hash_file(dir / "pipe").status()));
}

TEST(HashFile, AChangeIsNoticed) {
  TempDir dir;
  const fs::path path = dir / "f";
  write_file(path, "0123456789");
  Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  absl::StatusOr<ChangeCheck> check = ChangeCheck::start(fd.get(), path);
  ASSERT_OK(check.status());
  ASSERT_OK(check->end(fd.get(), 10, path));
  EXPECT_TRUE(absl::IsAborted(check->end(fd.get(), 9, path)));
  // A day later, so that no clock's coarseness can hide it.
  const timespec times[2] = {{0, UTIME_OMIT}, {86'400, 0}};
  ASSERT_EQ(::futimens(fd.get(), times), 0);
  const absl::Status changed = check->end(fd.get(), 10, path);
  EXPECT_TRUE(absl::IsAborted(changed));
  EXPECT_THAT(message(changed), HasSubstr("changed while it was being read: " + path.string()));
}

}  // namespace
}  // namespace pesc::blob
