#include "blob/archive_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>

#include "blob/hash.h"
#include "blob/store.h"

namespace pesc::blob {
namespace {

// The first bytes of a bomb are let through: small archives may pack well by nature.
constexpr uint64_t kRatioFromBytes = 1ull << 30;
constexpr uint64_t kSmallBytes = 1 << 20;

struct FreeContext {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

bool decompress(const std::string& packed, std::string& unpacked) {
  static thread_local const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  return ZSTD_decompressDCtx(context.get(), unpacked.data(), unpacked.size(), packed.data(),
                             packed.size()) == unpacked.size();
}

absl::Status refuse(const std::string& name, const std::string& why) {
  return absl::InvalidArgumentError("the archive's entry " + printable(name) + " " + why);
}

// "./a//b/" is "a/b"; empty for the root itself.
absl::StatusOr<std::string> normalised(const char* raw) {
  if (raw == nullptr || *raw == '\0') {
    return absl::InvalidArgumentError("the archive has an entry without a readable name");
  }
  const std::string_view name = raw;
  if (name.front() == '/') return refuse(raw, "has an absolute path");
  std::string out;
  for (size_t at = 0; at <= name.size();) {
    const size_t slash = std::min(name.find('/', at), name.size());
    const std::string_view component = name.substr(at, slash - at);
    at = slash + 1;
    if (component.empty() || component == ".") continue;
    if (component == "..") return refuse(raw, "has \"..\" in its path");
    if (component.size() > 255) return refuse(raw, "has a name of more than 255 bytes");
    if (!out.empty()) out += '/';
    out += component;
  }
  if (out.size() > 4096) return refuse(raw, "has a path of more than 4,096 bytes");
  return out;
}

}  // namespace

// In the "C" locale libarchive has no characters beyond ASCII and gives up on names that a zip or
// pax archive holds as UTF-8. Only this thread's locale is another one, and only for the call.
class ArchiveReader::Utf8Names {
 public:
  Utf8Names() {
    static const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    if (utf8 != nullptr) before_ = ::uselocale(utf8);
  }
  ~Utf8Names() {
    if (before_ != nullptr) ::uselocale(before_);
  }
  Utf8Names(const Utf8Names&) = delete;
  Utf8Names& operator=(const Utf8Names&) = delete;

 private:
  locale_t before_ = nullptr;
};

ArchiveReader::ArchiveReader(const UnpackLimits& limits)
    : limits_(limits), archive_(archive_read_new()) {}

ArchiveReader::~ArchiveReader() { archive_read_free(archive_); }

// By name, not "all": mtree reads whatever local files it is told to, some filters start programs,
// and what is let in here is what is tested.
void ArchiveReader::prepare_foreign() {
  archive_read_support_format_tar(archive_);
  archive_read_support_filter_zstd(archive_);
  archive_read_support_filter_gzip(archive_);
  archive_read_support_filter_bzip2(archive_);
  archive_read_support_filter_xz(archive_);
  archive_read_support_filter_lzma(archive_);
  archive_read_support_filter_lz4(archive_);
  archive_read_support_filter_compress(archive_);
  archive_read_support_format_zip(archive_);
  archive_read_support_format_7zip(archive_);
}

ssize_t ArchiveReader::on_read(archive* a, void* self, const void** data) {
  auto* reader = static_cast<ArchiveReader*>(self);
  if (!reader->read_ahead_.empty()) {
    reader->piece_ = std::move(reader->read_ahead_.back());
    reader->read_ahead_.pop_back();
    *data = reader->piece_.data();
    return static_cast<ssize_t>(reader->piece_.size());
  }
  absl::StatusOr<std::string> piece = (*reader->source_)();
  if (!piece.ok()) {
    reader->source_status_ = piece.status();
    archive_set_error(a, EIO, "the source failed");
    return -1;
  }
  reader->piece_ = *std::move(piece);
  *data = reader->piece_.data();
  return static_cast<ssize_t>(reader->piece_.size());
}

absl::Status ArchiveReader::open(const ByteSource& source) {
  source_ = &source;
  if (absl::StatusOr<bool> small = open_small(); !small.ok() || *small) return small.status();
  prepare_foreign();
  Utf8Names names;
  if (archive_read_open(archive_, this, nullptr, &ArchiveReader::on_read, nullptr) != ARCHIVE_OK) {
    return failure("cannot be read");
  }
  return absl::OkStatus();
}

// Most archives are outputs of a few kilobytes, one zstd frame each. Setting libarchive's filters
// up costs twice what such a one does when it is unpacked in one call, so that is tried first.
absl::StatusOr<bool> ArchiveReader::open_small() {
  absl::StatusOr<std::string> first = (*source_)();
  if (!first.ok()) return first.status();
  const unsigned long long size = ZSTD_getFrameContentSize(first->data(), first->size());
  const bool whole = size <= kSmallBytes &&
                     ZSTD_findFrameCompressedSize(first->data(), first->size()) == first->size();
  if (whole) {
    absl::StatusOr<std::string> second = (*source_)();
    if (!second.ok()) return second.status();
    std::string unpacked(size, '\0');
    if (second->empty() && decompress(*first, unpacked)) {
      piece_ = std::move(unpacked);
      archive_read_support_format_tar(archive_);
      if (archive_read_open_memory(archive_, piece_.data(), piece_.size()) == ARCHIVE_OK) {
        return true;
      }
      return failure("cannot be read");
    }
    if (!second->empty()) read_ahead_.push_back(*std::move(second));
  }
  if (!first->empty()) read_ahead_.push_back(*std::move(first));
  return false;
}

absl::Status ArchiveReader::open_file(const std::filesystem::path& path) {
  file_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file_) return errno_status(errno, "cannot open", path);
  if (absl::Status regular = ChangeCheck::start(file_.get(), path).status(); !regular.ok()) {
    return regular;
  }
  prepare_foreign();
  Utf8Names names;
  if (archive_read_open_fd(archive_, file_.get(), 128 * 1024) != ARCHIVE_OK) {
    return failure(path.string() + " cannot be read");
  }
  return absl::OkStatus();
}

int64_t ArchiveReader::on_seek(archive*, void* self, int64_t offset, int whence) {
  auto* reader = static_cast<ArchiveReader*>(self);
  const auto end = static_cast<int64_t>(reader->blob_bytes_);
  const auto here = static_cast<int64_t>(reader->blob_offset_);
  const int64_t base = whence == SEEK_SET ? 0 : whence == SEEK_END ? end : here;
  if (offset < -base || offset > end - base) return ARCHIVE_FATAL;
  reader->blob_offset_ = static_cast<uint64_t>(base + offset);
  return base + offset;
}

absl::Status ArchiveReader::open_blob(const Store& store, const BlobRef& blob) {
  blob_bytes_ = blob.size_bytes;
  blob_source_ = [this, &store, digest = blob.digest]() {
    absl::StatusOr<std::string> bytes = store.read(digest, blob_offset_, 256 * 1024);
    if (bytes.ok()) blob_offset_ += bytes->size();
    return bytes;
  };
  source_ = &blob_source_;
  prepare_foreign();
  archive_read_set_seek_callback(archive_, &ArchiveReader::on_seek);
  Utf8Names names;
  if (archive_read_open(archive_, this, nullptr, &ArchiveReader::on_read, nullptr) != ARCHIVE_OK) {
    return failure("cannot be read");
  }
  return absl::OkStatus();
}

absl::Status ArchiveReader::failure(const std::string& doing) const {
  if (!source_status_.ok()) return source_status_;
  const char* message = archive_error_string(archive_);
  return absl::InvalidArgumentError("the archive " + doing + ": " +
                                    (message != nullptr ? message : "unknown error") +
                                    "; give a whole tar, zip or 7z archive");
}

absl::StatusOr<bool> ArchiveReader::next(ArchiveItem& item) {
  int result;
  {
    Utf8Names names;
    result = archive_read_next_header(archive_, &entry_);
    if (result == ARCHIVE_EOF) {
      if (absl::Status end = check_end(); !end.ok()) return end;
      return false;
    }
    if (result < ARCHIVE_WARN) {
      return failure(entries_ == 0 ? "cannot be read"
                                   : "cannot be read behind " + printable(name_));
    }
    if (absl::Status filled = fill(item); !filled.ok()) return filled;
  }
  name_ = item.name;
  if (++entries_ > limits_.max_entries) {
    return absl::InvalidArgumentError("the archive has more than " +
                                      std::to_string(limits_.max_entries) + " entries");
  }
  if (item.size_bytes > limits_.max_bytes) {
    return refuse(item.name, "is larger than the " + std::to_string(limits_.max_bytes) +
                                 " bytes that may be unpacked");
  }
  if (absl::Status admitted = admit(item); !admitted.ok()) return admitted;
  return true;
}

absl::Status ArchiveReader::fill(ArchiveItem& item) {
  absl::StatusOr<std::string> name = normalised(archive_entry_pathname(entry_));
  if (!name.ok()) return name.status();
  item = ArchiveItem();
  item.name = *std::move(name);
  item.mode = archive_entry_perm(entry_) & 0777;
  item.has_time = archive_entry_mtime_is_set(entry_) != 0;
  item.modified_s = archive_entry_mtime(entry_);
  const int64_t size = archive_entry_size_is_set(entry_) != 0 ? archive_entry_size(entry_) : 0;
  if (size < 0) return refuse(item.name, "has a negative size");
  item.size_bytes = static_cast<uint64_t>(size);
  if (const char* target = archive_entry_hardlink(entry_)) {
    absl::StatusOr<std::string> other = normalised(target);
    if (!other.ok()) return refuse(item.name, "is a hard link that leads out of the archive");
    item.hard_link_target = *std::move(other);
    return absl::OkStatus();
  }
  switch (archive_entry_filetype(entry_)) {
    case AE_IFREG:
      item.kind = NodeKind::file;
      return absl::OkStatus();
    case AE_IFDIR:
      item.kind = NodeKind::directory;
      return absl::OkStatus();
    case AE_IFLNK: {
      const char* target = archive_entry_symlink(entry_);
      item.kind = NodeKind::link;
      item.link_target = target != nullptr ? target : "";
      return absl::OkStatus();
    }
    case AE_IFCHR:
    case AE_IFBLK:
      return refuse(item.name, "is a device file");
    case AE_IFIFO:
      return refuse(item.name, "is a named pipe");
    default:
      return refuse(item.name, "is neither a file nor a directory nor a link");
  }
}

// The rules on names alone. Unpacking holds to them once more, on the file system itself.
absl::Status ArchiveReader::admit(const ArchiveItem& item) {
  const std::hash<std::string_view> hash;
  if (item.name.empty()) {
    if (item.kind == NodeKind::directory && item.hard_link_target.empty()) return absl::OkStatus();
    return refuse(".", "would replace the directory it is unpacked into");
  }
  for (size_t slash = item.name.find('/'); slash != std::string::npos;
       slash = item.name.find('/', slash + 1)) {
    const std::string above = item.name.substr(0, slash);
    const NodeKind kind = kinds_.try_emplace(hash(above), NodeKind::directory).first->second;
    if (kind == NodeKind::directory) continue;
    return refuse(item.name, "goes through " + printable(above) + ", which is a " +
                                 (kind == NodeKind::link ? "symbolic link" : "file") +
                                 " of the same archive");
  }
  if (item.kind == NodeKind::link && !link_stays_inside(item.link_target, depth_of(item.name))) {
    return refuse(item.name, "is a symbolic link to " + printable(item.link_target) +
                                 ", which leads out of the archive");
  }
  if (!item.hard_link_target.empty()) {
    const auto target = kinds_.find(hash(item.hard_link_target));
    if (target == kinds_.end() || target->second != NodeKind::file ||
        item.hard_link_target == item.name) {
      return refuse(item.name, "is a hard link to " + printable(item.hard_link_target) +
                                   ", which is no earlier file of the archive");
    }
  }
  const auto [it, added] = kinds_.try_emplace(hash(item.name), item.kind);
  if (added) return absl::OkStatus();
  if ((it->second == NodeKind::directory) != (item.kind == NodeKind::directory)) {
    return refuse(item.name, "is there twice, as a directory and as something else");
  }
  it->second = item.kind;
  return absl::OkStatus();
}

absl::Status ArchiveReader::count(uint64_t bytes) {
  bytes_ += bytes;
  if (bytes_ > limits_.max_bytes) {
    return refuse(name_, "unpacks to more than the " + std::to_string(limits_.max_bytes) +
                             " bytes that are allowed");
  }
  if (limits_.max_ratio > 0 && bytes_ > kRatioFromBytes) {
    const int64_t packed = archive_filter_bytes(archive_, -1);
    if (packed > 0 && bytes_ / static_cast<uint64_t>(packed) > limits_.max_ratio) {
      return refuse(name_, "unpacks to more than " + std::to_string(limits_.max_ratio) +
                               " times its packed size: it looks like a bomb");
    }
  }
  return absl::OkStatus();
}

absl::Status ArchiveReader::read_data(const BlockSink& sink) {
  uint64_t end = 0;
  while (true) {
    const void* data = nullptr;
    size_t size = 0;
    la_int64_t offset = 0;
    const int result = archive_read_data_block(archive_, &data, &size, &offset);
    if (result == ARCHIVE_EOF) return absl::OkStatus();
    if (result < ARCHIVE_WARN) return failure("is damaged or cut short in " + printable(name_));
    if (size == 0) continue;
    const uint64_t from = static_cast<uint64_t>(offset);
    if (offset < 0 || from < end) return refuse(name_, "has overlapping pieces");
    // Holes count: they are read back as bytes.
    if (absl::Status counted = count(from + size - end); !counted.ok()) return counted;
    end = from + size;
    absl::Status sunk = sink(from, {static_cast<const char*>(data), size});
    if (!sunk.ok()) return sunk;
  }
}

// libarchive takes a tar that was cut between two entries for a whole one: the blocks of zeros that
// end a tar are missing.
absl::Status ArchiveReader::check_end() const {
  const int base = archive_format(archive_) & ARCHIVE_FORMAT_BASE_MASK;
  if (base == ARCHIVE_FORMAT_TAR && entry_ != nullptr &&
      archive_filter_bytes(archive_, 0) <= archive_read_header_position(archive_)) {
    return absl::InvalidArgumentError("the archive is cut short behind " + printable(name_) +
                                      "; give a whole one");
  }
  return absl::OkStatus();
}

}  // namespace pesc::blob
