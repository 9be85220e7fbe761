// Files that are hashed and written on a thread of their own.
#include "blob/write_behind.h"

#include <fcntl.h>
#include <unistd.h>

#include "tests/blob/blob_testing.h"

namespace pesc::blob {
namespace {

using ::testing::HasSubstr;

Fd create(const fs::path& path) {
  return Fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
}

std::string bytes_of(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + (i >> 8));
  return bytes;
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(WriteBehind, WritesAndHashesAllInOrder) {
  TempDir dir;
  int number = 0;
  for (const size_t size : {0, 1, 99, 100, 101, 200, 1'000, 12'345}) {
    for (const size_t at_once : {1, 7, 100, 333, 20'000}) {
      const fs::path path = dir.path() / std::to_string(++number);
      const std::string bytes = bytes_of(size);
      WriteBehind writer(create(path), path, 100);
      for (size_t at = 0; at < size; at += at_once) {
        ASSERT_OK(writer.append(std::string_view(bytes).substr(at, at_once)));
      }
      const absl::StatusOr<BlobRef> blob = writer.finish();
      ASSERT_OK(status_of(blob));
      EXPECT_EQ(*blob, (BlobRef{sha256(bytes), size}));
      EXPECT_TRUE(content(path) == bytes) << size << " bytes, " << at_once << " at once";
    }
  }
}

// The disk is full where the thread writes: who appends is told, and is not kept waiting.
TEST(WriteBehind, AnErrorIsTold) {
  const fs::path full = "/dev/full";
  WriteBehind writer(Fd(::open(full.c_str(), O_WRONLY | O_CLOEXEC)), full, 10);
  absl::Status status;
  for (int i = 0; i < 10 && status.ok(); ++i) status = writer.append("ten bytes.");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_FALSE(writer.append("ten bytes, and more").ok());
  EXPECT_THAT(message(writer.finish().status()), HasSubstr("the disk is full"));
}

TEST(WriteBehind, AnErrorOfTheLastPieceIsToldAtTheEnd) {
  const fs::path full = "/dev/full";
  WriteBehind writer(Fd(::open(full.c_str(), O_WRONLY | O_CLOEXEC)), full, 10);
  ASSERT_OK(writer.append("ten bytes."));
  EXPECT_EQ(writer.finish().status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(WriteBehind, MayBeDroppedBeforeItsEnd) {
  TempDir dir;
  const std::string bytes = bytes_of(1'000);
  {
    WriteBehind writer(create(dir.path() / "part"), dir.path() / "part", 100);
    ASSERT_OK(writer.append(bytes));
  }
  EXPECT_EQ(bytes.rfind(content(dir.path() / "part"), 0), 0u);
}

}  // namespace
}  // namespace pesc::blob
