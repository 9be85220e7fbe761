// What the blob tests share: a directory that goes away, files, archives of any kind.
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::blob {

namespace fs = std::filesystem;

#define ASSERT_OK(expression)                        \
  do {                                               \
    const absl::Status status_ = (expression);       \
    ASSERT_TRUE(status_.ok()) << status_.ToString(); \
  } while (false)

inline absl::Status status_of(const absl::Status& status) { return status; }
template <typename T>
absl::Status status_of(const absl::StatusOr<T>& result) {
  return result.status();
}
inline std::string message(const absl::Status& status) { return std::string(status.message()); }

class TempDir {
 public:
  TempDir() {
    std::string name = (fs::temp_directory_path() / "pesc-blob-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  fs::path operator/(const fs::path& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline void write_file(const fs::path& path, std::string_view bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  ASSERT_TRUE(out) << path;
}

inline std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Bytes that neither compress nor repeat.
inline std::string noise(size_t size, uint64_t seed = 1) {
  std::string out(size, '\0');
  for (char& c : out) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    c = static_cast<char>(seed >> 32);
  }
  return out;
}

// Below `root`: path -> contents; directories end with '/', links are "-> target".
inline std::map<std::string, std::string> tree(const fs::path& root) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    std::string name = entry.path().lexically_relative(root).string();
    if (entry.is_symlink()) {
      out[name] = "-> " + fs::read_symlink(entry.path()).string();
    } else if (entry.is_directory()) {
      out[name + "/"] = "";
    } else {
      out[name] = read_file(entry.path());
    }
  }
  return out;
}

// Builds an archive entry by entry, wicked ones too.
class ArchiveBuilder {
 public:
  using Setup = std::function<void(archive*)>;
  explicit ArchiveBuilder(const Setup& setup = [](archive* a) {
    archive_write_set_format_gnutar(a);
  }) {
    archive_ = archive_write_new();
    setup(archive_);
    archive_write_set_bytes_in_last_block(archive_, 1);
    archive_write_open(
        archive_, this, nullptr,
        [](archive*, void* self, const void* data, size_t size) {
          static_cast<ArchiveBuilder*>(self)->bytes_.append(static_cast<const char*>(data), size);
          return static_cast<la_ssize_t>(size);
        },
        nullptr);
  }
  ~ArchiveBuilder() {
    if (archive_ != nullptr) archive_write_free(archive_);
  }

  ArchiveBuilder& file(const std::string& name, std::string_view bytes, unsigned mode = 0644) {
    return add(name, AE_IFREG, bytes, [&](archive_entry* e) { archive_entry_set_perm(e, mode); });
  }
  ArchiveBuilder& directory(const std::string& name, unsigned mode = 0755) {
    return add(name, AE_IFDIR, "", [&](archive_entry* e) { archive_entry_set_perm(e, mode); });
  }
  ArchiveBuilder& symlink(const std::string& name, const std::string& target) {
    return add(name, AE_IFLNK, "",
               [&](archive_entry* e) { archive_entry_copy_symlink(e, target.c_str()); });
  }
  ArchiveBuilder& hardlink(const std::string& name, const std::string& target) {
    return add(name, AE_IFREG, "",
               [&](archive_entry* e) { archive_entry_copy_hardlink(e, target.c_str()); });
  }
  ArchiveBuilder& special(const std::string& name, unsigned type) { return add(name, type, ""); }

  std::string finish() {
    archive_write_free(archive_);
    archive_ = nullptr;
    return std::move(bytes_);
  }

 private:
  ArchiveBuilder& add(
      const std::string& name, unsigned type, std::string_view bytes,
      const std::function<void(archive_entry*)>& more = [](archive_entry*) {}) {
    archive_entry* entry = archive_entry_new();
    archive_entry_copy_pathname(entry, name.c_str());
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(bytes.size()));
    more(entry);
    EXPECT_GE(archive_write_header(archive_, entry), ARCHIVE_WARN)
        << archive_error_string(archive_);
    if (!bytes.empty()) archive_write_data(archive_, bytes.data(), bytes.size());
    archive_entry_free(entry);
    return *this;
  }

  archive* archive_ = nullptr;
  std::string bytes_;
};

}  // namespace pesc::blob
