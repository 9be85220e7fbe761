#include "rpc/credentials.h"

#include <gmock/gmock.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <map>
#include <set>

#include "rpc/connection.h"
#include "test_util.h"

namespace pesc::rpc {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr char kCertificate[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_text(const fs::path& path, const std::string& text, mode_t mode = 0600) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
  chmod(path.c_str(), mode);
}

mode_t mode_of(const fs::path& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
}

TEST(Identity, MadeOnceAndKept) {
  TemporaryDirectory dir;
  mode_t before = umask(0);
  auto made = load_or_create_identity(dir.path / "state");
  umask(before);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(mode_of(dir.path / "state" / "identity.pem"), 0600u);
  EXPECT_EQ(mode_of(dir.path / "state"), 0700u);
  auto again = load_or_create_identity(dir.path / "state");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->certificate_pem, made->certificate_pem);
  EXPECT_EQ(again->key_pem, made->key_pem);
  EXPECT_THAT(made->certificate_pem, Not(HasSubstr("PRIVATE")));

  TemporaryDirectory other;
  EXPECT_NE(load_or_create_identity(other.path)->certificate_pem, made->certificate_pem);
}

TEST(Identity, CertificateIsAsDocumented) {
  TemporaryDirectory dir;
  auto made = load_or_create_identity(dir.path);
  ASSERT_TRUE(made.ok());
  BIO* bio = BIO_new_mem_buf(made->certificate_pem.data(), -1);
  X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
  ASSERT_TRUE(certificate);
  char name[64] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
  EXPECT_STREQ(name, "pesc-coordinator");
  EXPECT_EQ(X509_check_host(certificate, "pesc-coordinator", 0, 0, nullptr), 1);
  EXPECT_EQ(X509_check_ca(certificate), 0);
  EXPECT_EQ(EVP_PKEY_get_bits(X509_get0_pubkey(certificate)), 256);
  int days = 0, seconds = 0;
  ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate));
  EXPECT_GE(days, 20 * 365 - 1);
  X509_free(certificate);
  BIO_free(bio);
}

TEST(Identity, DamagedOrReadableIsRefused) {
  TemporaryDirectory dir;
  ASSERT_TRUE(load_or_create_identity(dir.path).ok());
  fs::path file = dir.path / "identity.pem";
  chmod(file.c_str(), 0640);
  auto readable = load_or_create_identity(dir.path);
  EXPECT_EQ(readable.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text_of(readable.status()), HasSubstr("chmod 600 " + file.string()));

  write_text(file, "-----BEGIN CERTIFICATE-----\n");
  EXPECT_EQ(load_or_create_identity(dir.path).status().code(), absl::StatusCode::kDataLoss);

  // A certificate and somebody else's key.
  TemporaryDirectory other;
  auto mine = load_or_create_identity(other.path);
  fs::remove(file);
  auto theirs = load_or_create_identity(dir.path);
  write_text(file, mine->key_pem + theirs->certificate_pem);
  EXPECT_EQ(load_or_create_identity(dir.path).status().code(), absl::StatusCode::kDataLoss);
}

TEST(TokenStore, IssuesFindsAndRevokes) {
  TemporaryDirectory dir;
  auto store = TokenStore::open(dir.path);
  ASSERT_TRUE(store.ok());
  EXPECT_FALSE(store->find("anything"));
  auto ann = store->issue(Role::user, "ann");
  auto ann_too = store->issue(Role::user, "ann");  // on another machine of hers
  auto worker = store->issue(Role::worker, "lab-7");
  auto root = store->issue(Role::admin, "ann");
  ASSERT_TRUE(ann.ok() && ann_too.ok() && worker.ok() && root.ok());
  EXPECT_EQ(ann->size(), 43u);  // 256 bits
  EXPECT_EQ((std::set<std::string>{*ann, *ann_too, *worker, *root}).size(), 4u);

  auto reopened = TokenStore::open(dir.path);
  ASSERT_TRUE(reopened.ok());
  EXPECT_EQ(reopened->find(*ann)->name, "ann");
  EXPECT_EQ(reopened->find(*ann)->role, Role::user);
  EXPECT_EQ(reopened->find(*worker)->role, Role::worker);
  EXPECT_EQ(reopened->find(*root)->role, Role::admin);
  EXPECT_FALSE(reopened->find(""));
  EXPECT_FALSE(reopened->find(ann->substr(0, 42)));
  EXPECT_FALSE(reopened->find(*ann + "A"));
  EXPECT_FALSE(reopened->find(std::string(1 << 20, 'A')));

  EXPECT_TRUE(reopened->revoke(Role::user, "ann").ok());
  EXPECT_FALSE(reopened->find(*ann));
  EXPECT_FALSE(reopened->find(*ann_too));
  EXPECT_TRUE(reopened->find(*root));
  EXPECT_EQ(reopened->revoke(Role::user, "ann").code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(TokenStore::open(dir.path)->find(*ann));
}

TEST(TokenStore, FileHoldsNoToken) {
  TemporaryDirectory dir;
  auto store = TokenStore::open(dir.path);
  mode_t before = umask(0777);  // the strangest of umasks neither opens nor locks the file
  auto token = store->issue(Role::user, "ann");
  umask(before);
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(mode_of(dir.path / "tokens.json"), 0600u);
  EXPECT_THAT(read_text(dir.path / "tokens.json"), Not(HasSubstr(*token)));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path), fs::directory_iterator()), 1);
}

TEST(TokenStore, OddNamesAreRefused) {
  TemporaryDirectory dir;
  auto store = TokenStore::open(dir.path);
  for (const std::string& name : {std::string(), std::string("a/b"), std::string("a\nb"),
                                  std::string(65, 'a'), std::string("a\"b"), std::string("..")}) {
    EXPECT_EQ(store->issue(Role::user, name).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(fs::exists(dir.path / "tokens.json"));
}

TEST(TokenStore, DamagedOrReadableIsRefused) {
  TemporaryDirectory dir;
  ASSERT_TRUE(TokenStore::open(dir.path)->issue(Role::user, "ann").ok());
  fs::path file = dir.path / "tokens.json";
  std::string good = read_text(file);
  chmod(file.c_str(), 0644);
  auto readable = TokenStore::open(dir.path);
  EXPECT_EQ(readable.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text_of(readable.status()), HasSubstr("chmod 600 " + file.string()));
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{\"tokens\":1}"),
        std::string("{\"tokens\":[1]}"), std::string("{\"tokens\":[{\"sha256\":\"ab\"}]}"),
        good.substr(0, good.size() / 2)}) {
    write_text(file, text);
    EXPECT_EQ(TokenStore::open(dir.path).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

// A store that cannot save keeps what it had, and gives out no token that a restart would forget.
TEST(TokenStore, FailsWithoutChangeWhenItCannotSave) {
  TemporaryDirectory dir;
  auto store = TokenStore::open(dir.path / "state");
  write_text(dir.path / "state", "a file is in the way");
  EXPECT_FALSE(store->issue(Role::user, "ann").ok());
  EXPECT_EQ(store->revoke(Role::user, "ann").code(), absl::StatusCode::kNotFound);
}

JoinFile example(const std::string& address = "lab1:7341", Role role = Role::user,
                 const std::string& token = "t0k3n") {
  return {address, role, "ann", token,
          is_loopback(*parse_address(address)) ? std::string() : std::string(kCertificate)};
}

TEST(JoinFile, RoundTrip) {
  TemporaryDirectory dir;
  fs::path path = dir.path / "deep" / "a.join";
  ASSERT_TRUE(write_join_file(path, example()).ok());
  EXPECT_EQ(mode_of(path), 0600u);
  auto read = read_join_file(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->address, "lab1:7341");
  EXPECT_EQ(read->role, Role::user);
  EXPECT_EQ(read->name, "ann");
  EXPECT_EQ(read->token, "t0k3n");
  EXPECT_EQ(read->certificate_pem, kCertificate);
}

TEST(JoinFile, BadOnesAreRefusedWithAReason) {
  std::string good = to_json(example());
  auto with = [&good](const std::string& from, const std::string& to) {
    std::string text = good;
    size_t at = text.find(from);
    if (at == std::string::npos) ADD_FAILURE() << from;
    return text.replace(at, from.size(), to);
  };
  std::map<std::string, std::string> cases{
      {"", "not JSON"},
      {"[]", "not JSON of one"},
      {"{}", "pesc_join_file"},
      {with("\"pesc_join_file\": 1", "\"pesc_join_file\": 2"), "its format is 2"},
      {with("\"name\"", "\"nmae\""), "its key \"nmae\" is unknown"},
      {with("\"ann\"", "7"), "its \"name\" is no text"},
      {with("\"user\"", "\"boss\""), "neither user nor worker nor admin"},
      {with("lab1:7341", "lab1:x"), "is no port"},
      {with("t0k3n", ""), "\"token\" is missing"},
      {with("t0k3n", "t0 k3n"), "\"token\" is missing or damaged"},
      {with("BEGIN", "BEGUN"), "\"certificate\" is damaged"},
  };
  JoinFile bare = example();
  bare.certificate_pem.clear();
  cases.emplace(to_json(bare), "no certificate for lab1:7341");
  for (const auto& [text, why] : cases) {
    auto join = parse_join_file(text, "my.join");
    EXPECT_EQ(join.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(text_of(join.status()), HasSubstr(why));
    EXPECT_THAT(text_of(join.status()), HasSubstr("my.join"));
  }
}

TEST(JoinFile, OthersMustNotReadIt) {
  TemporaryDirectory dir;
  fs::path path = dir.path / "a.join";
  write_text(path, to_json(example()), 0604);
  auto read = read_join_file(path);
  EXPECT_EQ(read.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text_of(read.status()), HasSubstr("chmod 600 " + path.string()));
  EXPECT_EQ(read_join_file(dir.path / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(read_join_file(dir.path).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(mkfifo((dir.path / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_join_file(dir.path / "pipe").status().code(), absl::StatusCode::kInvalidArgument);
}

// Each test has a home of its own and none of the variables that matter.
class FindCoordinator : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name :
         {"PESC_COORDINATOR", "PESC_JOIN_FILE", "XDG_STATE_HOME", "XDG_CONFIG_HOME"}) {
      keep(name);
      unsetenv(name);
    }
    keep("HOME");
    setenv("HOME", home().c_str(), 1);
  }
  void TearDown() override {
    for (const auto& [name, value] : before_) {
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
    }
  }

  fs::path home() const { return dir_.path / "home"; }
  fs::path config() const { return home() / ".config" / "pesc"; }
  fs::path save(const std::string& name, const JoinFile& join) {
    fs::path path = dir_.path / name;
    EXPECT_TRUE(write_join_file(path, join).ok());
    return path;
  }
  static std::string token_of(const absl::StatusOr<std::optional<JoinFile>>& found) {
    if (!found.ok()) return "error: " + text_of(found.status());
    return *found ? (*found)->address + " " + (*found)->token : "nothing";
  }
  static std::string error_of(const absl::StatusOr<std::optional<JoinFile>>& found) {
    EXPECT_FALSE(found.ok());
    return text_of(found.status());
  }

  TemporaryDirectory dir_;

 private:
  void keep(const char* name) {
    const char* value = getenv(name);
    before_[name] = value ? std::optional<std::string>(value) : std::nullopt;
  }
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(FindCoordinator, NothingIsNamed) {
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "nothing");
  ASSERT_TRUE(write_join_file(pointer_path(7341, Role::user), example("localhost:7341")).ok());
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "nothing");  // a daemon is no name
}

TEST_F(FindCoordinator, PlacesFollowXdg) {
  EXPECT_EQ(user_state_dir(), home() / ".local/state/pesc");
  EXPECT_EQ(user_config_dir(), home() / ".config/pesc");
  EXPECT_EQ(pointer_path(7341, Role::user),
            home() / ".local/state/pesc/coordinators/7341.user.join");
  setenv("XDG_STATE_HOME", "/somewhere/state", 1);
  setenv("XDG_CONFIG_HOME", "relative/is/ignored", 1);
  EXPECT_EQ(user_state_dir(), "/somewhere/state/pesc");
  EXPECT_EQ(user_config_dir(), home() / ".config/pesc");
  unsetenv("HOME");
  EXPECT_TRUE(user_config_dir().is_absolute());
}

TEST_F(FindCoordinator, JoinFileByPath) {
  fs::path path = save("a.join", example());
  EXPECT_EQ(token_of(find_coordinator(path.string(), Role::user)), "lab1:7341 t0k3n");
  setenv("PESC_COORDINATOR", path.c_str(), 1);
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "lab1:7341 t0k3n");
  EXPECT_EQ(find_coordinator("./none.join", Role::user).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(FindCoordinator, JoinFileInTheEnvironmentAlone) {
  setenv("PESC_JOIN_FILE", save("a.join", example()).c_str(), 1);
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "lab1:7341 t0k3n");
}

TEST_F(FindCoordinator, AddressWithJoinFileInTheEnvironment) {
  setenv("PESC_JOIN_FILE", save("a.join", example()).c_str(), 1);
  EXPECT_EQ(token_of(find_coordinator("lab1:7341", Role::user)), "lab1:7341 t0k3n");
  EXPECT_EQ(token_of(find_coordinator("lab1", Role::user)), "lab1:7341 t0k3n");
  // By another name of the same machine: the certificate proves that it is the one.
  EXPECT_EQ(token_of(find_coordinator("10.0.0.9:7000", Role::user)), "10.0.0.9:7000 t0k3n");
}

// A token without a certificate is for this machine, and goes nowhere else.
TEST_F(FindCoordinator, ATokenGoesToNoStranger) {
  setenv("PESC_JOIN_FILE", save("a.join", example("localhost:7341")).c_str(), 1);
  EXPECT_EQ(token_of(find_coordinator("127.0.0.1:7341", Role::user)), "127.0.0.1:7341 t0k3n");
  EXPECT_THAT(error_of(find_coordinator("lab1:7341", Role::user)),
              HasSubstr("is for localhost:7341"));
  ASSERT_TRUE(write_join_file(config() / "lab2_7341.join", example("localhost:7341")).ok());
  EXPECT_THAT(error_of(find_coordinator("lab2:7341", Role::user)), HasSubstr("no certificate"));
}

TEST_F(FindCoordinator, AddressWithAFileOfItsName) {
  ASSERT_TRUE(
      write_join_file(config() / "lab1_7000.join", example("lab1:7000", Role::user, "own")).ok());
  EXPECT_EQ(token_of(find_coordinator("lab1:7000", Role::user)), "lab1:7000 own");
  // The one that fits wins over one for another coordinator.
  setenv("PESC_JOIN_FILE", save("a.join", example("other:7341")).c_str(), 1);
  EXPECT_EQ(token_of(find_coordinator("lab1:7000", Role::user)), "lab1:7000 own");
}

TEST_F(FindCoordinator, DaemonOfTheSameUser) {
  ASSERT_TRUE(
      write_join_file(pointer_path(7400, Role::user), example("127.0.0.1:7400", Role::user, "mine"))
          .ok());
  EXPECT_EQ(token_of(find_coordinator("localhost:7400", Role::user)), "localhost:7400 mine");
  EXPECT_EQ(token_of(find_coordinator(":7400", Role::user)), "localhost:7400 mine");
  EXPECT_FALSE(find_coordinator("lab1:7400", Role::user).ok());
  EXPECT_FALSE(find_coordinator("localhost:7400", Role::worker).ok());
  ASSERT_TRUE(write_join_file(pointer_path(7500, Role::admin),
                              example("127.0.0.1:7500", Role::admin, "root"))
                  .ok());
  EXPECT_EQ(token_of(find_coordinator("localhost:7500", Role::user)), "localhost:7500 root");
}

TEST_F(FindCoordinator, DaemonOfTheSameUserOnOneAddressOnly) {
  ASSERT_TRUE(write_join_file(pointer_path(7400, Role::admin),
                              example("10.77.0.1:7400", Role::admin, "mine"))
                  .ok());
  for (const char* name : {"10.77.0.1:7400", "localhost:7400", ":7400"}) {
    EXPECT_EQ(token_of(find_coordinator(name, Role::user)), "10.77.0.1:7400 mine") << name;
  }
  EXPECT_FALSE(find_coordinator("10.77.0.2:7400", Role::user).ok());
  // What is wrong with it is told to those who mean it.
  chmod(pointer_path(7400, Role::admin).c_str(), 0644);
  EXPECT_THAT(error_of(find_coordinator("localhost:7400", Role::user)), HasSubstr("chmod 600"));
  EXPECT_THAT(error_of(find_coordinator("10.77.0.2:7400", Role::user)), HasSubstr("no token"));
}

TEST_F(FindCoordinator, Configuration) {
  write_text(config() / "config.toml",
             "# the lab\ncoordinator = \"lab1:7341\"\njoin_file = \"keys/lab.join\"\n", 0644);
  ASSERT_TRUE(write_join_file(config() / "keys" / "lab.join", example()).ok());
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "lab1:7341 t0k3n");
  write_text(config() / "config.toml", "join_file = \"~/.config/pesc/keys/lab.join\"\n");
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "lab1:7341 t0k3n");
  write_text(config() / "config.toml", "coordinator = \"keys/lab.join\"\n");
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "lab1:7341 t0k3n");
  // What is nearer to the user comes first.
  setenv("PESC_COORDINATOR", save("b.join", example("lab2:1", Role::user, "b")).c_str(), 1);
  EXPECT_EQ(token_of(find_coordinator("", Role::user)), "lab2:1 b");
  fs::path c = save("c.join", example("lab3:1", Role::user, "c"));
  EXPECT_EQ(token_of(find_coordinator(c.string(), Role::user)), "lab3:1 c");
}

TEST_F(FindCoordinator, BadConfiguration) {
  std::map<std::string, std::string> cases{
      {"coordinater = \"lab1\"\n",
       "unknown key \"coordinater\"; known are: coordinator, join_file"},
      {"coordinator = 7341\n", "\"coordinator\" must be a text in quotes"},
      {"[coordinator]\n", "\"coordinator\" must be a text in quotes"},
      {"\n\ncoordinator = lab1\n", "line 3"},
  };
  for (const auto& [text, why] : cases) {
    write_text(config() / "config.toml", text);
    auto found = find_coordinator("", Role::user);
    EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(error_of(found), HasSubstr(why));
    EXPECT_THAT(error_of(found), HasSubstr("config.toml"));
  }
}

TEST_F(FindCoordinator, NoTokenSaysWhereItLooked) {
  auto found = find_coordinator("localhost:7400", Role::worker);
  EXPECT_EQ(found.status().code(), absl::StatusCode::kFailedPrecondition);
  for (const std::string& part :
       {std::string("localhost:7400"), std::string("$PESC_JOIN_FILE (not set)"),
        (config() / "config.toml").string(), (config() / "localhost_7400.join").string(),
        pointer_path(7400, Role::worker).string(), std::string("pesc join-file worker NAME")}) {
    EXPECT_THAT(error_of(found), HasSubstr(part));
  }
}

TEST_F(FindCoordinator, UnusableFilesAreErrorsNotSkipped) {
  fs::path path = save("a.join", example());
  chmod(path.c_str(), 0644);
  setenv("PESC_JOIN_FILE", path.c_str(), 1);
  EXPECT_THAT(error_of(find_coordinator("lab1", Role::user)), HasSubstr("chmod 600"));
  chmod(path.c_str(), 0600);
  EXPECT_THAT(error_of(find_coordinator("lab1", Role::worker)),
              HasSubstr("join file for the role user, and this needs one for worker"));
  setenv("PESC_JOIN_FILE", (dir_.path / "gone").c_str(), 1);
  EXPECT_THAT(error_of(find_coordinator("lab1", Role::user)), HasSubstr("$PESC_JOIN_FILE"));
  EXPECT_EQ(find_coordinator("lab1:x", Role::user).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(find_coordinator("lab1:0", Role::user).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pesc::rpc
