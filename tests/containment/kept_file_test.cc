// Files that stay open between one attempt and the next.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "runtime/worker/containment/host.h"

namespace pesc::containment {
namespace {

class KeptFileTest : public ::testing::Test {
 protected:
  KeptFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "pesc-kept-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
    path_ = directory_ / "file";
    ::close(::creat(path_.c_str(), 0600));
  }
  ~KeptFileTest() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_, path_;
};

TEST_F(KeptFileTest, IsOpenedOnceAndSeesWhatIsWritten) {
  KeptFile reads, writes;
  std::string text;
  for (const std::string wanted : {"one", "two"}) {
    EXPECT_EQ(real_host().write(writes, path_, wanted), 0);
    EXPECT_EQ(real_host().read(reads, path_, text), 0);
    EXPECT_EQ(text, wanted);
  }
  const int fd = reads.fd;
  EXPECT_GE(fd, 0);
  EXPECT_EQ(real_host().read(reads, path_, text), 0);
  EXPECT_EQ(reads.fd, fd);
}

// A controller that is taken away takes its files along, and another file has their name later.
TEST_F(KeptFileTest, AnotherIsOpenedWhenThatOneFails) {
  KeptFile file;
  std::string text;
  EXPECT_EQ(real_host().write(path_, "there"), 0);
  file.fd = ::open(directory_.c_str(), O_RDONLY | O_CLOEXEC);  // cannot be read
  EXPECT_EQ(real_host().read(file, path_, text), 0);
  EXPECT_EQ(text, "there");
}

TEST_F(KeptFileTest, SaysWhatIsWrong) {
  KeptFile file;
  std::string text = "before";
  EXPECT_EQ(real_host().read(file, directory_ / "absent", text), -ENOENT);
  EXPECT_EQ(text, "");
  EXPECT_EQ(real_host().write(file, directory_ / "absent", "x"), -ENOENT);
  EXPECT_LT(file.fd, 0);
}

}  // namespace
}  // namespace pesc::containment
