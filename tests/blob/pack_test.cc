#include "blob/pack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>

#include "blob_testing.h"

namespace pesc::blob {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

class Pack : public ::testing::Test {
 protected:
  absl::Status pack_now(const PackRequest& request) {
    bytes_.clear();
    absl::StatusOr<PackReport> report = pack(request, [this](std::string_view piece) {
      largest_piece_ = std::max(largest_piece_, piece.size());
      bytes_ += piece;
      return absl::OkStatus();
    });
    if (report.ok()) report_ = *report;
    return report.status();
  }

  // Packs, unpacks, and says what came out.
  std::map<std::string, std::string> round_trip(const PackRequest& request) {
    EXPECT_TRUE(pack_now(request).ok());
    const fs::path target = dir_ / ("out" + std::to_string(++count_));
    UnpackLimits limits;
    limits.max_ratio = 0;
    const absl::Status unpacked = unpack(source_of(bytes_), target, limits);
    EXPECT_TRUE(unpacked.ok()) << unpacked;
    return tree(target);
  }

  TempDir dir_;
  std::string bytes_;
  size_t largest_piece_ = 0;
  PackReport report_;
  int count_ = 0;
};

TEST_F(Pack, BringsBackWhatIsInTheOutputDirectory) {
  write_file(dir_ / "o/result.csv", "1,2\n");
  write_file(dir_ / "o/sub/deep/x", "");
  fs::create_directories(dir_ / "o/empty");
  PackRequest request{.output_dir = dir_ / "o"};
  request.extra = {{"output.txt", "hello\n", ""}, {"stderr.txt", "", ""}};
  EXPECT_THAT(round_trip(request),
              ElementsAre(Pair("empty/", ""), Pair("output.txt", "hello\n"),
                          Pair("result.csv", "1,2\n"), Pair("stderr.txt", ""), Pair("sub/", ""),
                          Pair("sub/deep/", ""), Pair("sub/deep/x", "")));
  EXPECT_EQ(report_.files, 4u);
  EXPECT_EQ(report_.bytes, 10u);
}

TEST_F(Pack, NothingIsAnArchiveToo) {
  EXPECT_THAT(round_trip({.output_dir = dir_ / "missing"}), IsEmpty());
  EXPECT_THAT(round_trip({}), IsEmpty());
}

TEST_F(Pack, IsTheSameBytesEachTime) {
  for (const char* name : {"b", "a", "c/d", "c/a", "Z"}) write_file(dir_ / "o" / name, name);
  const PackRequest request{.output_dir = dir_ / "o"};
  ASSERT_OK(pack_now(request));
  const std::string first = bytes_;
  ASSERT_OK(pack_now(request));
  EXPECT_EQ(bytes_, first);
}

TEST_F(Pack, AFileOfTheProgramGoesBeforeAnExtraOne) {
  write_file(dir_ / "o/output.txt", "its own");
  write_file(dir_ / "stdout", "captured");
  write_file(dir_ / "stderr", "errors");
  PackRequest request{.output_dir = dir_ / "o"};
  request.extra = {{"output.txt", "", dir_ / "stdout"}, {"stderr.txt", "", dir_ / "stderr"}};
  EXPECT_THAT(round_trip(request),
              ElementsAre(Pair("output.txt", "its own"), Pair("stderr.txt", "errors")));
}

TEST_F(Pack, ExtraFilesAreReadWithoutWhatFollows) {
  write_file(dir_ / "o/a-large-one", noise(4 << 20));
  PackRequest request{.output_dir = dir_ / "o"};
  request.extra = {{"output.txt", "early", ""}};
  ASSERT_OK(pack_now(request));
  size_t taken = 0;
  auto source = [&]() -> absl::StatusOr<std::string> {
    const std::string piece = bytes_.substr(taken, 64 * 1024);
    taken += piece.size();
    return piece;
  };
  absl::StatusOr<std::string> member = read_member(source, "output.txt", 100);
  ASSERT_OK(member.status());
  EXPECT_EQ(*member, "early");
  EXPECT_LT(taken, bytes_.size() / 2);
}

TEST_F(Pack, CollectsWhatMatchesAndNamesTheRest) {
  write_file(dir_ / "app/input.dat", "in");
  write_file(dir_ / "app/result.csv", "r");
  write_file(dir_ / "app/log.txt", "l");
  write_file(dir_ / "app/plots/a.png", "p");
  write_file(dir_ / "app/plots/raw/b", "q");
  write_file(dir_ / "app/data/in", "i");
  write_file(dir_ / "app/data/new", "n");
  write_file(dir_ / "app/cache/x", "c");
  write_file(dir_ / "app/output/kept", "k");
  PackRequest request{.output_dir = dir_ / "app/output", .collect_root = dir_ / "app"};
  request.collect = {"*.csv", "./plots/"};
  request.skip = {"input.dat", "data", "data/in", "cache/"};
  EXPECT_THAT(round_trip(request), ElementsAre(Pair("kept", "k"), Pair("plots/", ""),
                                               Pair("plots/a.png", "p"), Pair("plots/raw/", ""),
                                               Pair("plots/raw/b", "q"), Pair("result.csv", "r")));
  EXPECT_THAT(report_.uncollected, ElementsAre("data/new", "log.txt"));
}

TEST_F(Pack, NeverCollectsAnInput) {
  write_file(dir_ / "app/in.csv", "in");
  write_file(dir_ / "app/out.csv", "out");
  PackRequest request{.collect_root = dir_ / "app", .collect = {"**"}, .skip = {"in.csv"}};
  EXPECT_THAT(round_trip(request), ElementsAre(Pair("out.csv", "out")));
  EXPECT_THAT(report_.uncollected, IsEmpty());
}

TEST_F(Pack, WhatNobodyMissesIsNotListed) {
  for (int i = 0; i < 30; ++i) {
    write_file(dir_ / "app/__pycache__" / (std::to_string(i) + ".pyc"), "");
    write_file(dir_ / "app/lib/__pycache__" / (std::to_string(i) + ".pyc"), "");
  }
  write_file(dir_ / "app/my__pycache__/x", "");
  write_file(dir_ / "app/result", "");
  PackRequest request{.collect_root = dir_ / "app", .unlisted = {"__pycache__"}};
  ASSERT_OK(pack_now(request));
  EXPECT_THAT(report_.uncollected, ElementsAre("my__pycache__/x", "result"));
  request.collect = {"__pycache__"};
  EXPECT_THAT(round_trip(request), SizeIs(31)) << "it comes back when it is asked for";
}

TEST_F(Pack, TheOutputDirectoryGoesBeforeWhatIsCollected) {
  write_file(dir_ / "o/same", "from output");
  write_file(dir_ / "o/file", "a file");
  write_file(dir_ / "app/same", "from app");
  write_file(dir_ / "app/file/below", "in the way");
  PackRequest request{.output_dir = dir_ / "o", .collect_root = dir_ / "app", .collect = {"**"}};
  EXPECT_THAT(round_trip(request),
              ElementsAre(Pair("file", "a file"), Pair("same", "from output")));
}

TEST_F(Pack, NamesAtMostTwentyUncollected) {
  for (int i = 0; i < 50; ++i) write_file(dir_ / "app" / std::to_string(100 + i), "");
  PackRequest request{.collect_root = dir_ / "app"};
  ASSERT_OK(pack_now(request));
  EXPECT_THAT(report_.uncollected, SizeIs(20));
  request.collect = {"149"};
  EXPECT_THAT(round_trip(request), ElementsAre(Pair("149", "")));
}

TEST_F(Pack, LinksStayOnlyWhenTheyLeadInside) {
  write_file(dir_ / "o/d/f", "x");
  fs::create_symlink("f", dir_ / "o/d/near");
  fs::create_symlink("../top", dir_ / "o/d/up");
  fs::create_symlink("/etc/passwd", dir_ / "o/absolute");
  fs::create_symlink("../secret", dir_ / "o/out");
  fs::create_symlink(dir_ / "o/d/f", dir_ / "o/d/latest");
  ASSERT_EQ(::mkfifo((dir_ / "o/pipe").c_str(), 0600), 0);
  EXPECT_THAT(round_trip({.output_dir = dir_ / "o"}),
              ElementsAre(Pair("d/", ""), Pair("d/f", "x"), Pair("d/latest", "-> .././d/f"),
                          Pair("d/near", "-> f"), Pair("d/up", "-> ../top")));
}

TEST_F(Pack, NamesAreBytesInTheCLocale) {
  ASSERT_STREQ(std::setlocale(LC_ALL, nullptr), "C");
  const std::string long_name(250, 'n');
  const std::string long_path = long_name + "/" + long_name + "/" + long_name;
  std::map<std::string, std::string> expected;
  for (const std::string& name :
       {std::string("na\xc3\xafve"), std::string("\xff\xfe raw"), std::string("two\nlines"),
        std::string(" spaces and 'quotes' "), long_name}) {
    write_file(dir_ / "o" / name / "inner", name);
    expected[name + "/"] = "";
    expected[name + "/inner"] = name;
  }
  write_file(dir_ / "o" / long_path, "deep");
  expected[long_name + "/" + long_name + "/"] = "";
  expected[long_path] = "deep";
  EXPECT_EQ(round_trip({.output_dir = dir_ / "o"}), expected);
}

TEST_F(Pack, KeepsModes) {
  write_file(dir_ / "o/run", "x");
  fs::permissions(dir_ / "o/run", fs::perms(0755));
  round_trip({.output_dir = dir_ / "o"});
  EXPECT_NE(fs::status(dir_ / "out1/run").permissions() & fs::perms::owner_exec, fs::perms::none);
}

TEST_F(Pack, LargeFilesComeInBoundedPieces) {
  write_file(dir_ / "o/noise", noise(9'000'001));
  write_file(dir_ / "o/zeros", std::string(20'000'000, '\0'));
  const auto out = round_trip({.output_dir = dir_ / "o"});
  EXPECT_EQ(out.at("noise"), noise(9'000'001));
  EXPECT_EQ(out.at("zeros"), std::string(20'000'000, '\0'));
  EXPECT_LE(largest_piece_, size_t{1} << 20);
  EXPECT_LT(bytes_.size(), 9'300'000u);
}

// The sink is called while a file is being read: it is where the file can be changed just then.
TEST_F(Pack, AFileThatChangesItsSizeIsAnErrorAndAWholeArchive) {
  for (const bool grows : {true, false}) {
    const fs::path file = dir_ / "o/a-changing";
    write_file(file, noise(3'000'000));
    write_file(dir_ / "o/b-after", "after");
    std::string bytes;
    bool changed = false;
    absl::StatusOr<PackReport> report =
        pack({.output_dir = dir_ / "o"}, [&](std::string_view piece) {
          bytes += piece;
          if (!changed) {
            EXPECT_EQ(::truncate(file.c_str(), grows ? 5'000'000 : 1'500'000), 0);
          }
          changed = true;
          return absl::OkStatus();
        });
    EXPECT_TRUE(absl::IsAborted(report.status())) << report.status();
    EXPECT_THAT(message(report.status()), HasSubstr("a-changing"));
    const fs::path target = dir_ / (grows ? "grown" : "shrunk");
    ASSERT_OK(unpack(source_of(bytes), target));
    EXPECT_EQ(fs::file_size(target / "a-changing"), 3'000'000u);
    EXPECT_EQ(read_file(target / "b-after"), "after");
  }
}

TEST_F(Pack, AnErrorOfTheSinkEndsIt) {
  write_file(dir_ / "o/f", noise(2'000'000));
  int calls = 0;
  absl::StatusOr<PackReport> report = pack({.output_dir = dir_ / "o"}, [&](std::string_view) {
    ++calls;
    return absl::ResourceExhaustedError("full");
  });
  EXPECT_EQ(report.status(), absl::ResourceExhaustedError("full"));
  EXPECT_EQ(calls, 1);
}

TEST_F(Pack, AMissingExtraFileIsNamed) {
  PackRequest request;
  request.extra = {{"output.txt", "", dir_ / "gone"}};
  const absl::Status status = pack_now(request);
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(message(status), HasSubstr("gone"));
}

// A rank may have made a hard link to a file that only root, who packs, can read.
TEST_F(Pack, LeavesOutWhatTheRanksUserCouldNotRead) {
  write_file(dir_ / "o/secret", "s");
  write_file(dir_ / "o/public", "p");
  ::chmod((dir_ / "o/secret").c_str(), 0640);
  ::chmod((dir_ / "o/public").c_str(), 0644);
  PackRequest request{.output_dir = dir_ / "o"};
  request.only_readable_by = {::geteuid() + 1, ::getegid() + 1};
  EXPECT_THAT(round_trip(request), ElementsAre(Pair("public", "p")));
  request.only_readable_by = {::geteuid() + 1, ::getegid()};
  EXPECT_THAT(round_trip(request), SizeIs(2));
  request.only_readable_by = {::geteuid(), ::getegid() + 1};
  EXPECT_THAT(round_trip(request), SizeIs(2));
}

TEST_F(Pack, AFileThatCannotBeReadIsNamed) {
  write_file(dir_ / "o/secret", "x");
  fs::permissions(dir_ / "o/secret", fs::perms::none);
  const absl::Status status = pack_now({.output_dir = dir_ / "o"});
  if (::geteuid() == 0) {
    EXPECT_TRUE(status.ok()) << "root reads everything: " << status;
  } else {
    EXPECT_TRUE(absl::IsPermissionDenied(status));
    EXPECT_THAT(message(status), HasSubstr("secret"));
  }
}

}  // namespace
}  // namespace pesc::blob
