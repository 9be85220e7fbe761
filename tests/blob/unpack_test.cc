// Archives from strangers: what is refused, and that nothing is ever written outside the target.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "blob/archive_reader.h"
#include "blob/pack.h"
#include "blob/store.h"
#include "blob_testing.h"

namespace pesc::blob {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class Unpack : public ::testing::Test {
 protected:
  // Unpacks `bytes` in all three ways, which must agree.
  absl::Status try_all(const std::string& bytes, const UnpackLimits& limits = {}) {
    const int n = ++tries_;
    target_ = dir_ / ("target" + std::to_string(n));
    const fs::path archive = dir_ / ("archive" + std::to_string(n));
    write_file(archive, bytes);
    const absl::Status streamed = unpack(source_of(bytes), target_, limits);
    const absl::Status from_file =
        unpack_file(archive, dir_ / ("file" + std::to_string(n)), limits);
    const absl::Status checked = check_archive(archive, limits);
    EXPECT_EQ(streamed.code(), from_file.code()) << streamed << " / " << from_file;
    EXPECT_EQ(streamed.code(), checked.code()) << streamed << " / " << checked;
    return streamed;
  }

  void refused(ArchiveBuilder& builder, const std::string& why) {
    const absl::Status status = try_all(builder.finish());
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(message(status), HasSubstr(why));
    for (const auto& entry : fs::directory_iterator(dir_.path())) {
      EXPECT_THAT(entry.path().filename().string(),
                  ::testing::MatchesRegex("(target|archive|file)[0-9]+"))
          << "written outside";
    }
  }

  TempDir dir_;
  fs::path target_;
  int tries_ = 0;
};

TEST_F(Unpack, TakesTheCommonKindsOfArchives) {
  const std::vector<ArchiveBuilder::Setup> kinds = {
      [](archive* a) { archive_write_set_format_gnutar(a); },
      [](archive* a) { archive_write_set_format_ustar(a); },
      [](archive* a) { archive_write_set_format_pax(a), archive_write_add_filter_gzip(a); },
      [](archive* a) { archive_write_set_format_pax(a), archive_write_add_filter_bzip2(a); },
      [](archive* a) { archive_write_set_format_gnutar(a), archive_write_add_filter_xz(a); },
      [](archive* a) { archive_write_set_format_gnutar(a), archive_write_add_filter_zstd(a); },
      [](archive* a) { archive_write_set_format_zip(a); },
  };
  for (const auto& kind : kinds) {
    ArchiveBuilder builder(kind);
    builder.directory("d").file("d/run.sh", "#!/bin/sh\n", 0755).file("x", "data");
    ASSERT_OK(try_all(builder.finish()));
    EXPECT_THAT(tree(target_),
                ElementsAre(Pair("d/", ""), Pair("d/run.sh", "#!/bin/sh\n"), Pair("x", "data")));
  }
  // The mode of a zip's file is in the directory at its end, where a stream sees it last.
  EXPECT_NE(fs::status(dir_ / "file7/d/run.sh").permissions() & fs::perms::owner_exec,
            fs::perms::none);
}

// What submit checked in a file, a worker unpacks out of its store.
TEST_F(Unpack, ABlobIsReadLikeAFile) {
  auto store = *Store::open({.directory = dir_ / "store", .durable = false});
  const std::vector<ArchiveBuilder::Setup> kinds = {
      [](archive* a) { archive_write_set_format_7zip(a); },
      [](archive* a) { archive_write_set_format_zip(a); },
      [](archive* a) { archive_write_set_format_gnutar(a), archive_write_add_filter_zstd(a); },
  };
  int n = 0;
  for (const auto& kind : kinds) {
    ArchiveBuilder builder(kind);
    builder.directory("d").file("d/run.sh", "#!/bin/sh\n", 0755).file("x", noise(700'000));
    builder.symlink("l", "x");
    const std::string bytes = builder.finish();
    write_file(dir_ / "archive", bytes);
    ASSERT_OK(check_archive(dir_ / "archive"));
    const fs::path target = dir_ / ("blob" + std::to_string(++n));
    ASSERT_OK(unpack_blob(*store, *store->put(bytes), target));
    EXPECT_EQ(read_file(target / "x"), noise(700'000));
    EXPECT_TRUE(fs::is_symlink(target / "l"));
    EXPECT_NE(fs::status(target / "d/run.sh").permissions() & fs::perms::owner_exec,
              fs::perms::none);
  }
  const BlobRef missing{sha256("missing"), 7};
  EXPECT_TRUE(absl::IsNotFound(unpack_blob(*store, missing, dir_ / "none")));
}

TEST_F(Unpack, RefusesPathsThatLeadOut) {
  refused(ArchiveBuilder().file("/etc/evil", "x"), "absolute path");
  refused(ArchiveBuilder().file("../evil", "x"), "\"..\"");
  refused(ArchiveBuilder().file("a/../../evil", "x"), "\"..\"");
  refused(ArchiveBuilder().directory("../evil"), "\"..\"");
  refused(ArchiveBuilder().file("a/..", "x"), "\"..\"");
  refused(ArchiveBuilder().file("./.", "x"), "replace the directory");
}

TEST_F(Unpack, RefusesLinksThatLeadOut) {
  refused(ArchiveBuilder().symlink("l", "/etc/passwd"), "leads out");
  refused(ArchiveBuilder().symlink("l", ".."), "leads out");
  refused(ArchiveBuilder().symlink("d/l", "../../x"), "leads out");
  refused(ArchiveBuilder().symlink("a/b/c/d", "../../..").symlink("e", "a/b/c/d/../.."),
          "leads out");
  refused(ArchiveBuilder().hardlink("h", "/etc/passwd"), "hard link");
  refused(ArchiveBuilder().hardlink("h", "../x"), "hard link");
  refused(ArchiveBuilder().hardlink("h", "never"), "no earlier file");
  // A hard link to a symbolic link would move it to where it leads elsewhere.
  refused(ArchiveBuilder().symlink("a/b/l", "../../x").hardlink("h", "a/b/l"), "no earlier file");
}

TEST_F(Unpack, RefusesToGoThroughASymbolicLink) {
  refused(ArchiveBuilder().directory("d").symlink("l", "d").file("l/x", "x"), "goes through 'l'");
  refused(ArchiveBuilder().symlink("l", ".").directory("l"), "twice");
  refused(ArchiveBuilder().file("f", "x").file("f/x", "x"), "goes through 'f'");
}

TEST_F(Unpack, RefusesLinksThatWereThereBefore) {
  const fs::path target = dir_ / "t";
  fs::create_directories(target);
  fs::create_directories(dir_ / "outside");
  fs::create_directory_symlink(dir_ / "outside", target / "l");
  fs::create_symlink(dir_ / "outside/made", target / "f");
  UnpackLimits limits;
  limits.allow_existing = true;
  ArchiveBuilder through;
  through.file("l/x", "x");
  EXPECT_TRUE(absl::IsInvalidArgument(unpack(source_of(through.finish()), target, limits)));
  // A link in a file's place is replaced, not followed.
  ArchiveBuilder over;
  over.file("f", "mine");
  ASSERT_OK(unpack(source_of(over.finish()), target, limits));
  EXPECT_TRUE(fs::is_empty(dir_ / "outside"));
  EXPECT_FALSE(fs::is_symlink(target / "f"));
  EXPECT_EQ(read_file(target / "f"), "mine");
}

TEST_F(Unpack, RefusesDevicesAndPipes) {
  refused(ArchiveBuilder().special("dev", AE_IFCHR), "device file");
  refused(ArchiveBuilder().special("dev", AE_IFBLK), "device file");
  refused(ArchiveBuilder().special("pipe", AE_IFIFO), "named pipe");
}

TEST_F(Unpack, KeepsLinksThatStayInside) {
  ArchiveBuilder builder;
  builder.file("d/f", "x").symlink("d/l", "f").symlink("d/up", "../g").file("g", "y");
  builder.hardlink("h", "d/f").symlink("dangling", "nowhere/yet");
  ASSERT_OK(try_all(builder.finish()));
  EXPECT_EQ(read_file(target_ / "d/l"), "x");
  EXPECT_EQ(read_file(target_ / "d/up"), "y");
  EXPECT_EQ(fs::hard_link_count(target_ / "h"), 2u);
}

TEST_F(Unpack, ModesLoseOnlyWhatIsDangerous) {
  ArchiveBuilder builder;
  builder.file("s", "x", 06755).directory("locked", 0).file("locked/f", "y", 0);
  ASSERT_OK(try_all(builder.finish()));
  EXPECT_EQ(fs::status(target_ / "s").permissions() & fs::perms::set_uid, fs::perms::none);
  EXPECT_EQ(read_file(target_ / "locked/f"), "y");
}

TEST_F(Unpack, RefusesWhatIsNoArchiveAndWhatIsCutShort) {
  EXPECT_TRUE(absl::IsInvalidArgument(try_all("")));
  EXPECT_TRUE(absl::IsInvalidArgument(try_all("just some text\n")));
  EXPECT_TRUE(absl::IsInvalidArgument(try_all(noise(10'000))));
  for (const auto& kind : std::vector<ArchiveBuilder::Setup>{
           [](archive* a) { archive_write_set_format_gnutar(a); },
           [](archive* a) { archive_write_set_format_gnutar(a), archive_write_add_filter_gzip(a); },
           [](archive* a) { archive_write_set_format_gnutar(a), archive_write_add_filter_zstd(a); },
       }) {
    ArchiveBuilder builder(kind);
    builder.file("a", noise(3000)).file("b", noise(5000, 7));
    const std::string whole = builder.finish();
    ASSERT_OK(try_all(whole));
    for (size_t keep : {size_t{100}, size_t{600}, size_t{4096}, size_t{6000}}) {
      const absl::Status status = try_all(whole.substr(0, keep));
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << keep << ": " << status;
    }
  }
  // Cut exactly between two entries: 512 + 3072.
  ArchiveBuilder plain;
  plain.file("a", noise(3000)).file("b", "x");
  const absl::Status between = try_all(plain.finish().substr(0, 512 + 3072));
  EXPECT_TRUE(absl::IsInvalidArgument(between)) << between;
  EXPECT_THAT(message(between), HasSubstr("cut short"));
}

TEST_F(Unpack, HoldsItsLimits) {
  ArchiveBuilder builder;
  builder.file("small", "x").file("big", std::string(100'000, 'y'));
  const std::string bytes = builder.finish();
  UnpackLimits limits;
  limits.max_bytes = 50'000;
  absl::Status status = try_all(bytes, limits);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(message(status), HasSubstr("'big'"));
  limits = {};
  limits.max_entries = 1;
  EXPECT_THAT(message(try_all(bytes, limits)), HasSubstr("more than 1 entries"));
  limits.max_entries = 2;
  EXPECT_TRUE(try_all(bytes, limits).ok());
}

TEST_F(Unpack, RefusesABomb) {
  ArchiveBuilder builder([](archive* a) {
    archive_write_set_format_gnutar(a);
    archive_write_add_filter_zstd(a);
  });
  const std::string zeros(256 << 20, '\0');
  for (int i = 0; i < 5; ++i) builder.file("f" + std::to_string(i), zeros);
  const fs::path archive = dir_ / "bomb";
  write_file(archive, builder.finish());
  const absl::Status status = check_archive(archive);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(message(status), HasSubstr("bomb"));
  UnpackLimits trusting;
  trusting.max_ratio = 0;
  ASSERT_OK(check_archive(archive, trusting));
}

TEST_F(Unpack, LeavesWhatIsThereUnlessAllowed) {
  ArchiveBuilder builder;
  builder.file("f", "new");
  const std::string bytes = builder.finish();
  write_file(dir_ / "t/f", "old and longer");
  EXPECT_TRUE(absl::IsAlreadyExists(unpack(source_of(bytes), dir_ / "t")));
  EXPECT_EQ(read_file(dir_ / "t/f"), "old and longer");
  UnpackLimits limits;
  limits.allow_existing = true;
  ASSERT_OK(unpack(source_of(bytes), dir_ / "t", limits));
  EXPECT_EQ(read_file(dir_ / "t/f"), "new");
}

TEST_F(Unpack, TheLaterOfTwoEntriesOfOneNameCounts) {
  ArchiveBuilder builder;
  builder.file("f", "first").hardlink("h", "f").file("f", "second");
  ASSERT_OK(try_all(builder.finish()));
  EXPECT_EQ(read_file(target_ / "f"), "second");
  EXPECT_EQ(read_file(target_ / "h"), "first");
}

TEST_F(Unpack, NamesAreBytesInAnyLocaleAndFormat) {
  const std::string utf8 = "na\xc3\xafve caf\xc3\xa9", latin = "caf\xe9 \xff",
                    odd = "two\nlines 'quoted' \"x\"";
  for (const auto& kind : std::vector<ArchiveBuilder::Setup>{
           [](archive* a) { archive_write_set_format_gnutar(a); },
           [](archive* a) { archive_write_set_format_ustar(a); },
           [](archive* a) {
             archive_write_set_format_pax(a);
             archive_write_set_options(a, "hdrcharset=BINARY");
           },
       }) {
    ArchiveBuilder builder(kind);
    builder.file(utf8, "1").file(latin, "2").file(odd, "3").file("d" + latin + "/x", "4");
    ASSERT_OK(try_all(builder.finish()));
    EXPECT_EQ(read_file(target_ / utf8), "1");
    EXPECT_EQ(read_file(target_ / latin), "2");
    EXPECT_EQ(read_file(target_ / odd), "3");
    EXPECT_EQ(read_file(target_ / ("d" + latin) / "x"), "4");
  }
}

// As Python's tarfile and GNU tar --format=pax write it: a pax "path" record in UTF-8.
TEST_F(Unpack, PaxNamesInUtf8SurviveTheCLocale) {
  const std::string name = "r\xc3\xa9sultats/\xe6\x97\xa5.txt";
  const std::string record_body = " path=" + name + "\n";
  const std::string record = std::to_string(record_body.size() + 2) + record_body;
  auto header = [](const std::string& file, size_t size, char type) {
    std::string block(512, '\0');
    block.replace(0, file.size(), file);
    block.replace(100, 7, "0000644");
    char octal[16];
    std::snprintf(octal, sizeof octal, "%011zo", size);
    block.replace(124, 11, octal);
    block.replace(136, 11, "00000000000");
    block[156] = type;
    block.replace(257, 8, std::string("ustar\00000", 8));
    block.replace(148, 8, 8, ' ');
    unsigned sum = 0;
    for (const char c : block) sum += static_cast<uint8_t>(c);
    std::snprintf(octal, sizeof octal, "%06o", sum);
    block.replace(148, 7, std::string(octal, 7));
    return block;
  };
  auto padded = [](std::string bytes) {
    bytes.resize((bytes.size() + 511) / 512 * 512);
    return bytes;
  };
  const std::string archive = header("PaxHeader", record.size(), 'x') + padded(record) +
                              header("r_sultats/_.txt", 4, '0') + padded("data") +
                              std::string(1024, '\0');
  ASSERT_OK(try_all(archive));
  EXPECT_EQ(read_file(target_ / name), "data");
}

TEST_F(Unpack, MessagesShowOddNamesSafely) {
  ArchiveBuilder builder;
  builder.file("/a\n\xff\xc3\xa9", "x");
  EXPECT_THAT(message(try_all(builder.finish())), HasSubstr("'/a\\x0a\\xff\xc3\xa9'"));
}

TEST_F(Unpack, ASourcesErrorComesThrough) {
  const absl::Status status = unpack(
      []() -> absl::StatusOr<std::string> { return absl::UnavailableError("gone"); }, dir_ / "t");
  EXPECT_EQ(status, absl::UnavailableError("gone"));
}

TEST_F(Unpack, ReadsOneMember) {
  ArchiveBuilder builder;
  builder.file("a", "1").file("./output.txt", "the output").file("z", "2");
  const std::string bytes = builder.finish();
  absl::StatusOr<std::string> member = read_member(source_of(bytes), "output.txt", 100);
  ASSERT_OK(member.status());
  EXPECT_EQ(*member, "the output");
  EXPECT_TRUE(absl::IsNotFound(read_member(source_of(bytes), "b", 100).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(read_member(source_of(bytes), "output.txt", 9).status()));
}

}  // namespace
}  // namespace pesc::blob
