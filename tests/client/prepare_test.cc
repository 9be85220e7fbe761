// From a description to a specification: names; and files that change before they are sent.
#include "client/prepare.h"

#include "client/session.h"
#include "client/transfer.h"
#include "tests/client/support.h"

namespace pesc {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PrepareTest : public Embedded {
 protected:
  PrepareTest() : before_(std::filesystem::current_path()) {
    std::filesystem::create_directories(directory_ / "here/code");
    std::filesystem::current_path(directory_ / "here");
  }
  ~PrepareTest() override { std::filesystem::current_path(before_); }

  std::string name_of(const Job& job) {
    absl::StatusOr<client::PreparedJob> prepared = client::prepare(job);
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    return prepared.ok() ? prepared->spec.name : "";
  }

 private:
  std::filesystem::path before_;
};

TEST_F(PrepareTest, AnInterpretersJobIsCalledAsItsScript) {
  for (const char* name : {"study.py", "data.csv", "code/main.R", "a\nb", "libs.zip"}) {
    std::ofstream(name) << name;
  }
  struct Case {
    std::string program;
    std::vector<std::string> arguments, files;
    std::string name;
  };
  const Case cases[] = {
      {"python3", {"study.py", "data.csv"}, {"study.py", "data.csv"}, "study.py"},
      {"python3.11", {"-u", "./study.py"}, {"study.py"}, "study.py"},
      {"/usr/bin/python3", {"study.py"}, {"study.py"}, "study.py"},
      {"Rscript", {"--vanilla", "code/main.R"}, {"code"}, "main.R"},
      {"java", {"-jar", "study.py"}, {"study.py"}, "study.py"},
      {"python3", {"study.py"}, {}, "python3"},  // it does not travel
      {"python3", {"-c", "import x", "data.csv"}, {"data.csv"}, "python3"},
      {"python3", {"-m", "study", "data.csv"}, {"data.csv"}, "python3"},
      {"sh", {"a\nb"}, {"a\nb"}, "sh"},              // cannot be shown
      {"sort", {"data.csv"}, {"data.csv"}, "sort"},  // no interpreter
  };
  for (const Case& each : cases) {
    Job job = job_of(each.program);
    job.send_program = false;
    job.arguments = each.arguments;
    job.files = each.files;
    EXPECT_EQ(name_of(job), each.name) << each.program << ' ' << each.arguments[0];
    job.name = "mine";
    EXPECT_EQ(name_of(job), "mine");
  }
  Job shared = job_of("perl");
  shared.arguments = {"study.py"};
  shared.shared_files = {"study.py"};
  EXPECT_EQ(name_of(shared), "study.py");
}

// Between hashing and sending, whatever the size, a file may be written to.
class ChangedFile : public PrepareTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(ChangedFile, IsNoticedAndNothingIsStored) {
  Client client = local();
  const std::string bytes(GetParam(), 'a');
  auto rewrite = [](const std::string& text) { std::ofstream("data", std::ios::trunc) << text; };
  const std::function<void()> changes[] = {
      [&] { rewrite(std::string(bytes.size(), 'b')); },  // as long as before
      [&] { rewrite(bytes + "more"); },
      [&] { rewrite(bytes.substr(1)); },
      [&] { std::filesystem::remove("data"); },
  };
  for (const auto& change : changes) {
    rewrite(bytes);
    Job job = job_of("true");
    job.files = {"data"};
    absl::StatusOr<client::PreparedJob> prepared = client::prepare(job);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    change();
    absl::Status status =
        client::upload(*client.session(), {prepared->spec.files[0].blob}, prepared->sources);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("data"));
  }
  EXPECT_THAT(*client.jobs(), IsEmpty());
  // What was not stored then is sent now: nothing of the failed attempts was taken for it.
  rewrite(bytes);
  Job job = job_of(directory_.script("count", "wc -c <data; head -c 1 data"));
  job.files = {"data"};
  absl::StatusOr<JobHandle> handle = client.submit(job);
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_EQ(*handle->wait()->output(0), std::to_string(bytes.size()) + "\na");
}

// A file that is large enough to be named by the coordinator, and what it holds.
constexpr size_t kUnnamedBytes = 17 << 20;
std::string write_large(const std::string& path, char seed) {
  std::string bytes(kUnnamedBytes, seed);
  for (size_t i = 0; i < bytes.size(); i += 1'000) bytes[i] = char('a' + i / 1'000 % 26);
  std::ofstream(path, std::ios::trunc) << bytes;
  return bytes;
}

TEST_F(PrepareTest, ALargeFileGetsItsNameWhenItIsSent) {
  Client client = local();
  const std::string bytes = write_large("data", '1');
  write_large("copy", '1');
  for (const char* name : {"data", "copy"}) {  // the second time there is one of that size
    Job job = job_of("true");
    job.shared_files = {name};
    absl::StatusOr<client::PreparedJob> prepared = client::prepare(job, client::Naming::when_sent);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    ASSERT_EQ(prepared->unnamed.size(), 1u);
    absl::StatusOr<JobHandle> handle = client::submit(client, *prepared, "");
    ASSERT_TRUE(handle.ok()) << handle.status();
    EXPECT_TRUE(prepared->unnamed.empty());
    EXPECT_EQ(prepared->spec.files.back().blob, (BlobRef{sha256(bytes), bytes.size()}));
    EXPECT_EQ(prepared->sources.at(sha256(bytes)), name);
    EXPECT_EQ(client::digest_of(prepared->spec), client::digest_of(client::prepare(job)->spec))
        << "what --resume compares";
    EXPECT_TRUE(handle->wait()->succeeded());
  }
  const client::PreparedJob named = *client::prepare(job_of("true"), client::Naming::when_sent);
  EXPECT_TRUE(named.unnamed.empty());
}

TEST_F(PrepareTest, ALargeFileThatChangesBeforeItIsSentIsRefused) {
  Client client = local();
  const std::function<void()> changes[] = {
      [] { write_large("data", '2'); },
      [] { std::ofstream("data", std::ios::app) << "more"; },
      [] { std::filesystem::resize_file("data", 5'000); },
      [] { std::filesystem::remove("data"); },
  };
  for (const auto& change : changes) {
    write_large("data", '1');
    Job job = job_of("true");
    job.files = {"data"};
    absl::StatusOr<client::PreparedJob> prepared = client::prepare(job, client::Naming::when_sent);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    change();
    const absl::Status status = client::submit(client, *prepared, "").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("data"));
  }
  EXPECT_THAT(*client.jobs(), IsEmpty());
}

TEST_F(PrepareTest, TwoLargeFilesForOnePlaceAreComparedAtOnce) {
  std::filesystem::create_directories("other");
  const auto prepare = [&] {
    Job job = job_of("true");
    job.files = {std::filesystem::absolute("data"), std::filesystem::absolute("other/data")};
    return client::prepare(job, client::Naming::when_sent).status();
  };
  write_large("data", '1');
  write_large("other/data", '1');
  EXPECT_EQ(prepare(), absl::OkStatus());
  write_large("other/data", '2');
  EXPECT_THAT(std::string(prepare().message()), HasSubstr("two different files would be"));
}

INSTANTIATE_TEST_SUITE_P(Sizes, ChangedFile, ::testing::Values(1'000, 3'000'000));

}  // namespace
}  // namespace pesc
