#include "runtime/coordinator/shell/journal_rows.h"

#include <zlib.h>

#include <array>
#include <cstring>
#include <utility>

namespace pesc::coordinator {
namespace {

// The bytes a checksum covers: fixed-width little-endian numbers, texts with their length.
// Nearly all rows fit into the buffer, which costs no memory of the heap, and no call per number.
class Bytes {
 public:
  Bytes& number(uint64_t value) {
    if (used_ + 8 > buffer_.size()) flush();
    for (int i = 0; i < 8; ++i) buffer_[used_ + size_t(i)] = char(value >> (8 * i) & 0xff);
    used_ += 8;
    return *this;
  }
  Bytes& text(std::string_view value) {
    number(value.size());
    if (used_ + value.size() > buffer_.size()) {
      flush();
      before_ += value;
    } else if (!value.empty()) {
      std::memcpy(buffer_.data() + used_, value.data(), value.size());
      used_ += value.size();
    }
    return *this;
  }
  uint32_t crc() {
    if (before_.empty()) return crc_of({buffer_.data(), used_});
    flush();
    return crc_of(before_);
  }
  std::string take() {
    flush();
    return std::move(before_);
  }

 private:
  static uint32_t crc_of(std::string_view bytes) {
    return static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const unsigned char*>(bytes.data()), uInt(bytes.size())));
  }
  void flush() {
    before_.append(buffer_.data(), used_);
    used_ = 0;
  }

  std::string before_;  // what did not fit
  std::array<char, 512> buffer_;
  size_t used_ = 0;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  uint64_t number() {
    if (bytes_.size() < 8) {
      good_ = false;
      return 0;
    }
    uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes_[i]);
    bytes_.remove_prefix(8);
    return value;
  }
  std::string text() {
    const uint64_t size = number();
    if (size > bytes_.size()) {
      good_ = false;
      return {};
    }
    std::string value(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return value;
  }
  bool at_end() const { return bytes_.empty(); }
  bool good() const { return good_; }

 private:
  std::string_view bytes_;
  bool good_ = true;
};

std::vector<std::string> split_names(std::string_view joined) {
  std::vector<std::string> names;
  while (!joined.empty()) {
    const size_t end = joined.find('\0');
    names.emplace_back(joined.substr(0, end));
    if (end == std::string_view::npos) break;
    joined.remove_prefix(end + 1);
  }
  return names;
}

AttemptOutcome read_outcome(const Statement& row, int at) {
  AttemptOutcome outcome;
  outcome.reason = static_cast<EndReason>(row.integer(at));
  outcome.exit_code = static_cast<int32_t>(row.integer(at + 1));
  outcome.signal = static_cast<int32_t>(row.integer(at + 2));
  outcome.refused_arguments = row.integer(at + 3) != 0;
  outcome.detail = row.bytes(at + 4);
  outcome.started_unix_ms = row.integer(at + 5);
  outcome.duration_ms = row.u64(at + 6);
  outcome.cpu_ms = row.u64(at + 7);
  outcome.max_rss_bytes = row.u64(at + 8);
  outcome.output = blob_ref(row.bytes(at + 9), row.u64(at + 10));
  outcome.uncollected = split_names(row.bytes(at + 11));
  outcome.saved_ms = row.u64(at + 14);
  outcome.written_bytes = row.u64(at + 17);
  outcome.peak_gpu_bytes = row.u64(at + 18);
  return outcome;
}

}  // namespace

std::string join_names(const std::vector<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) {
    joined += name;
    joined.push_back('\0');
  }
  return joined;
}

std::string encode(const Claim& claim) {
  if (claim == Claim()) return "";
  Bytes bytes;
  bytes.number(claim.memory_bytes).number(claim.gpu_memory_bytes).number(claim.gpu_alone);
  for (const std::string& gpu : claim.gpus) bytes.text(gpu);
  return bytes.take();
}

Claim decode_claim(std::string_view bytes) {
  Claim claim;
  if (bytes.empty()) return claim;
  Reader reader(bytes);
  claim.memory_bytes = reader.number();
  claim.gpu_memory_bytes = reader.number();
  claim.gpu_alone = reader.number() != 0;
  while (!reader.at_end() && reader.good()) claim.gpus.push_back(reader.text());
  return claim;
}

std::string_view output_bytes(const BlobRef& output) {
  if (output.empty()) return {};
  return {reinterpret_cast<const char*>(output.digest.bytes.data()), output.digest.bytes.size()};
}

uint32_t attempt_crc(const StoredAttempt& a) {
  Bytes bytes;
  const AttemptRow& row = a.row;
  bytes.number(row.key.job.value).number(row.key.rank).number(row.key.attempt);
  bytes.number(row.worker.value).number(a.leased_seq).number(a.ended_seq);
  // Only when they say something: rows of version 1 keep their checksums.
  const uint64_t saved_ms = a.ended_seq == 0 ? 0 : row.outcome.saved_ms;
  if (row.checkpoint != 0 || row.second || saved_ms != 0 || row.base_ms != 0) {
    bytes.number(row.checkpoint).number(row.second).number(saved_ms).number(row.base_ms);
  }
  if (row.claim != Claim()) bytes.text(encode(row.claim));
  if (a.ended_seq == 0) return bytes.crc();
  const AttemptOutcome& o = row.outcome;
  bytes.number(row.final).number(uint64_t(row.state)).number(uint64_t(o.reason));
  bytes.number(uint64_t(int64_t{o.exit_code})).number(uint64_t(int64_t{o.signal}));
  bytes.number(o.refused_arguments).text(o.detail).number(uint64_t(o.started_unix_ms));
  bytes.number(o.duration_ms).number(o.cpu_ms).number(o.max_rss_bytes);
  bytes.text(output_bytes(o.output)).number(o.output.size_bytes).text(join_names(o.uncollected));
  if (o.written_bytes != 0 || o.peak_gpu_bytes != 0) {
    bytes.number(o.written_bytes).number(o.peak_gpu_bytes);
  }
  return bytes.crc();
}

StoredAttempt read_attempt(const Statement& row, int at, bool* intact) {
  StoredAttempt a;
  a.row.key = {JobId{row.u64(at)}, uint32_t(row.integer(at + 1)), uint32_t(row.integer(at + 2))};
  a.row.worker = WorkerId{row.u64(at + 3)};
  a.leased_seq = row.u64(at + 4);
  a.ended_seq = row.u64(at + 5);
  a.row.checkpoint = uint32_t(row.integer(at + 20));
  a.row.second = row.integer(at + 21) != 0;
  a.row.base_ms = row.u64(at + 23);
  a.row.claim = decode_claim(row.bytes(at + 24));
  a.row.ended = a.ended_seq != 0;
  if (a.row.ended) {
    a.row.final = row.integer(at + 6) != 0;
    a.row.state = static_cast<RankState>(row.integer(at + 7));
    a.row.outcome = read_outcome(row, at + 8);
  }
  if (intact != nullptr) *intact = attempt_crc(a) == static_cast<uint32_t>(row.integer(at + 27));
  return a;
}

uint32_t job_crc(JobId id, uint64_t seq, std::string_view owner, std::string_view spec,
                 int64_t submitted) {
  Bytes bytes;
  bytes.number(id.value).number(seq).text(owner).text(spec).number(uint64_t(submitted));
  return bytes.crc();
}

uint32_t worker_crc(const StoredWorker& worker) {
  Bytes bytes;
  bytes.number(worker.seen.worker.value).text(worker.seen.name).text(worker.seen.room);
  // Rows of version 1 keep their checksums.
  if (worker.draining || worker.paused) bytes.number(orders_of(worker));
  return bytes.crc();
}

std::string_view bytes_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

uint32_t program_crc(const ProgramLearned& program, uint64_t seq) {
  Bytes bytes;
  bytes.number(seq).text(bytes_of(program.program)).number(program.memory_bytes);
  return bytes.number(program.gpu_memory_bytes).number(program.gpu_known).crc();
}

uint32_t checkpoint_crc(const CheckpointKept& kept, std::string_view chunks, uint64_t seq) {
  Bytes bytes;
  bytes.number(kept.key.job.value).number(kept.key.rank).number(kept.key.attempt);
  bytes.number(kept.checkpoint.number).text(output_bytes(kept.checkpoint.manifest));
  bytes.number(kept.checkpoint.manifest.size_bytes).text(chunks);
  return bytes.number(kept.saved_ms).number(kept.total_ms).number(seq).crc();
}

uint32_t drop_crc(const CheckpointsDropped& dropped, uint64_t seq) {
  Bytes bytes;
  bytes.number(dropped.job.value).number(dropped.rank).number(dropped.first);
  bytes.number(dropped.through);
  return bytes.number(seq).crc();
}

std::string join_blobs(const std::vector<BlobRef>& blobs) {
  std::string joined;
  joined.reserve(blobs.size() * kBlobRefBytes);
  for (const BlobRef& blob : blobs) {
    joined.append(reinterpret_cast<const char*>(blob.digest.bytes.data()),
                  blob.digest.bytes.size());
    joined += Bytes().number(blob.size_bytes).take();
  }
  return joined;
}

std::vector<BlobRef> split_blobs(std::string_view joined) {
  std::vector<BlobRef> blobs;
  blobs.reserve(joined.size() / kBlobRefBytes);
  for (; joined.size() >= kBlobRefBytes; joined.remove_prefix(kBlobRefBytes)) {
    Reader size(joined.substr(32, 8));
    blobs.push_back(blob_ref(joined.substr(0, 32), size.number()));
  }
  return blobs;
}

BlobRef blob_ref(std::string_view digest, uint64_t size_bytes) {
  BlobRef blob;
  blob.size_bytes = size_bytes;
  if (digest.size() == blob.digest.bytes.size()) {
    std::memcpy(blob.digest.bytes.data(), digest.data(), digest.size());
  }
  return blob;
}

uint32_t job_event_crc(JobId job, uint64_t seq, JobEventKind kind, std::string_view payload) {
  Bytes bytes;
  return bytes.number(job.value).number(seq).number(uint64_t(kind)).text(payload).crc();
}

std::string encode(const RanksCancelled& record) {
  return Bytes().number(record.first).number(record.last).take();
}
std::string encode(const JobStopped& record) {
  return Bytes().number(record.by_user).text(record.detail).take();
}
std::string encode(const JobFinished& record) {
  return Bytes().number(uint64_t(record.state)).number(uint64_t(record.unix_ms)).take();
}
// Ranges: a retry of a large job reopens long runs of ranks. Then its moment, which rows of
// versions before 5 lack.
std::string encode(const RanksReopened& record) {
  Bytes bytes;
  for (size_t i = 0; i < record.ranks.size();) {
    size_t end = i + 1;
    while (end < record.ranks.size() && record.ranks[end] == record.ranks[end - 1] + 1) ++end;
    bytes.number(record.ranks[i]).number(record.ranks[end - 1]);
    i = end;
  }
  if (record.unix_ms != 0) bytes.number(uint64_t(record.unix_ms));
  return bytes.take();
}

std::string encode(const GangStarted& record) {
  return Bytes()
      .number(record.generation)
      .text(record.master_addr)
      .number(record.master_port)
      .take();
}

absl::StatusOr<Record> decode_job_event(JobId job, JobEventKind kind, std::string_view payload) {
  Reader reader(payload);
  Record record;
  switch (kind) {
    case JobEventKind::ranks_cancelled: {
      const auto first = uint32_t(reader.number());
      record = RanksCancelled{job, first, uint32_t(reader.number())};
      break;
    }
    case JobEventKind::stopped: {
      const bool by_user = reader.number() != 0;
      record = JobStopped{job, by_user, reader.text()};
      break;
    }
    case JobEventKind::finished: {
      const auto state = static_cast<JobState>(reader.number());
      record = JobFinished{job, state, int64_t(reader.number())};
      break;
    }
    case JobEventKind::reopened: {
      RanksReopened reopened{job, {}};
      const size_t time_at = payload.size() % 16 == 8 ? payload.size() - 8 : payload.size();
      reader = Reader(payload.substr(0, time_at));
      while (!reader.at_end() && reader.good()) {
        const uint64_t first = reader.number(), last = reader.number();
        if (!reader.good() || last >= kMaxRepetitions || first > last) {
          return absl::DataLossError("a damaged list of ranks");
        }
        for (uint64_t rank = first; rank <= last; ++rank) reopened.ranks.push_back(uint32_t(rank));
      }
      if (time_at < payload.size()) {
        reopened.unix_ms = int64_t(Reader(payload.substr(time_at)).number());
      }
      record = std::move(reopened);
      break;
    }
    case JobEventKind::gang_started: {
      GangStarted started{job, uint32_t(reader.number()), {}, 0};
      started.master_addr = reader.text();
      started.master_port = uint16_t(reader.number());
      record = std::move(started);
      break;
    }
    default:
      return absl::DataLossError("an unknown kind of row");
  }
  if (!reader.good() || !reader.at_end()) return absl::DataLossError("a damaged payload");
  return record;
}

}  // namespace pesc::coordinator
